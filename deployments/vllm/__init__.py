"""vLLM, started under a name that says which weights answer."""

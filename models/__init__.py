"""Everything that computes on tensors and text; no file or network traffic of ours."""

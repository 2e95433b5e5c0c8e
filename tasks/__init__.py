"""One stage per file: load, call a pure function, publish. Glue only."""

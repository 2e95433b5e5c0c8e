"""Glue between storage and models: load, call a pure function, publish."""

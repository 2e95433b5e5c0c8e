"""Kinds of things that `cirflow import` and `cirflow export` know, one module each."""

"""Checking every file under a root, mending what can be derived, and clearing what is left over."""

"""Pseudo tokens for images: mapping networks, their training, and the texts they learn from."""

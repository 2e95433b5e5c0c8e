"""BLIP's towers on transformers' modules: image tokens, texts, and texts read over an image."""

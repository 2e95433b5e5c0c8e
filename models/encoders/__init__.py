"""Image-text encoders: a backbone as a value, how it is loaded, and what it computes."""

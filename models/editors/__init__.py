"""Image editors: a reference image, edited as a text asks."""

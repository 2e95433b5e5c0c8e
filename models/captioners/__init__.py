"""Models that describe images, one file per family."""

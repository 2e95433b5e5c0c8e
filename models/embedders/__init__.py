"""Models that read image and text together: one vector of both."""

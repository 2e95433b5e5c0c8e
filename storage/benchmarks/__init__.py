"""Composed-retrieval benchmarks: annotations, images, predictions and submission files."""

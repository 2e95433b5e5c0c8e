"""Image collections: sources, ingest, names and decoding."""

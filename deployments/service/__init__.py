"""The service: pages and an API over one root, with models and galleries kept warm."""

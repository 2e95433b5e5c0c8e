"""Prefect flows and their forms: they choose stages and run them, and compute nothing."""

"""Prefect's server behind a guard: the one way in which this project starts one."""

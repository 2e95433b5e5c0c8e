"""How cirflow is launched: the command line, Prefect's settings, servers and workers."""

__version__ = "0.1.0"

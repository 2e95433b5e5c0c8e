"""The Prefect server, its work pools and workers, as one thing that goes up and down."""

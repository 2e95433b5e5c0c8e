"""What is asked of each flow: its parameters, checked before Prefect starts or a model loads."""

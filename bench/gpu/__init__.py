"""What a GPU does with the project's heavy work: `python -m bench.gpu`."""

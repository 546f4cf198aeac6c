"""PyTorch's samples of every operator through compiled cells; ``benchmarks/operator_samples.py`` is the command."""

"""Tensor-level code: the stage IR, the kernels of each target, and how a kernel is called."""

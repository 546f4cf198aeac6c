"""The fast backend of :mod:`edbatch_tvm.batching`: TIR kernels, built once and cached per machine."""

from edbatch_tvm.native.kernels import NativeKernels, load

__all__ = ["NativeKernels", "load"]

"""Schedules for NVIDIA GPUs; read ``threads``, ``tiles``, ``stage_code``, ``general_code``, then ``kernels``."""

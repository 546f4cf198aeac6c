"""Settings of PyTorch and Python that the whole process has, and that code changes for a while: ``with`` blocks do.

Elements that wait inside such blocks would leave them in another order than they entered them, and the last one would
set again what the first one had set.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch.autograd import forward_ad

_NAMES = (
    "_is_multithreading_enabled",
    "_is_view_replay_enabled",
    "_is_fwd_grad_enabled",
    "_get_deterministic_algorithms",
    "_get_deterministic_algorithms_warn_only",
    "_get_deterministic_fill_uninitialized_memory",
    "_get_float32_matmul_precision",
    "_get_warnAlways",
    "_get_mkldnn_enabled",
    "_get_flash_sdp_enabled",
    "_get_mem_efficient_sdp_enabled",
    "_get_math_sdp_enabled",
)

_FUNCTIONS = (
    torch.get_default_dtype,
    torch.is_anomaly_enabled,
    torch.is_anomaly_check_nan_enabled,
    torch.get_num_threads,
    # Those that this version of PyTorch has.
    *(getattr(torch._C, name) for name in _NAMES if hasattr(torch._C, name)),
)


def torch_settings() -> tuple[Any, ...]:
    """What those of PyTorch are now; equal if none differs."""
    return forward_ad._current_level, *[function() for function in _FUNCTIONS]


def process_settings() -> tuple[Any, ...]:
    """What they all are now. Other threads may change those of Python in between, and set them back."""
    # Of an object that is put in the place of another, which one it is.
    return id(warnings.filters), id(warnings.showwarning), id(sys.stdout), id(sys.stderr), *torch_settings()

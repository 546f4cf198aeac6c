"""Devices that kernels are tuned for, by name."""

from __future__ import annotations

from pathlib import Path

from tvm.target import Target

SHIPPED = Path(__file__).parent / "records"
"""The tuning records that come with the package: a folder a device."""


def device_name(target: Target, threads: int) -> str:
    """The name of a device: its kind of CPU and its number of threads, such as ``haswell-2``."""
    return f"{target.attrs.get('mcpu', target.kind)}-{threads}"

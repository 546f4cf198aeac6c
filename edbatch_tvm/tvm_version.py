"""The versions of TVM this package works with, checked when TVM is first needed."""

from __future__ import annotations

from importlib import metadata

from edbatch_tvm.errors import EnvironmentMismatch

REQUIRED = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
"""Distributions and their exact versions; another FFI version crashes the process."""


def require_tvm() -> None:
    """Check that the installed pair of TVM and its FFI is the one this package was built for.

    Raises
    ------
    EnvironmentMismatch
        Naming what is installed, what is needed and the command that installs it.
    """
    wanted = " ".join(f"{name}=={version}" for name, version in REQUIRED.items())
    for name, version in REQUIRED.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise EnvironmentMismatch(f"{name} is not installed", version, f"pip install {wanted}") from None
        if found != version:
            raise EnvironmentMismatch(f"{name} {found} is installed", version, f"pip install {wanted}")

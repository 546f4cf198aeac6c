"""The command ``edbatch``: one verb a module, thin over :mod:`edbatch_tvm.models`."""

from edbatch_tvm.cli.main import main

__all__ = ["main"]

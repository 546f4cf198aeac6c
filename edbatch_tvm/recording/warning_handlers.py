"""PyTorch's handler of warnings, which belongs to the function of PyTorch that an element waits in.

Functions of PyTorch collect the warnings of C++ in an object on their stack, and a variable of the thread points to it
until they return. An element that waits inside one leaves its stack, and others come in between: the variable would
point to what is no longer there, and the next warning of PyTorch would end the process.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

_GET = "_ZN3c1012WarningUtils19get_warning_handlerEv"
_SET = "_ZN3c1012WarningUtils19set_warning_handlerEPNS_14WarningHandlerE"


@cache
def warning_handlers() -> tuple[Callable[[], int | None], Callable[[int | None], None]] | None:
    """Functions that return the address of the handler of this thread, and set it; None if PyTorch has none known."""
    library = {"darwin": "libc10.dylib", "win32": "c10.dll"}.get(sys.platform, "libc10.so")
    try:
        # With the interpreter lock: they take a few nanoseconds.
        c10 = ctypes.PyDLL(str(Path(torch.__file__).with_name("lib") / library))
        get, put = getattr(c10, _GET), getattr(c10, _SET)
    except (AttributeError, OSError):
        return None
    get.restype, get.argtypes = ctypes.c_void_p, []
    put.restype, put.argtypes = None, [ctypes.c_void_p]
    return get, put

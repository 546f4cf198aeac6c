"""Named parts of kernels."""

# ruff: noqa: D102
# mypy: ignore-errors

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.tvm_compat import TIRInline, scan_macro
from edbatch_tvm.tvm_compat import script_tirx as T


class InlinedFunction(TIRInline):
    """A ``T.inline`` function whose call costs the parsing of its body and no more.

    TVM's own reads the source file of every caller on the stack to find the parser, and its own source again at every
    call: 5 to 18 ms a call, as much as a body of thirty lines.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        source, _ = scan_macro(function, {})
        super().__init__(source, {}, function)

    def __call__(self, *arguments: Any) -> None:
        # Looked up now: a part may be defined below those that call it.
        found = self.func.__globals__
        self.closure_vars = {"T": T, **{name: found[name] for name in self.func.__code__.co_names if name in found}}
        super().__call__(*arguments)

    @cached_property
    def _definition(self) -> Any:
        return super().get_macro_def()

    def get_macro_def(self) -> Any:
        return self._definition

    def _find_parser_def(self) -> Any:
        frame = sys._getframe(1)
        while frame is not None:
            parser = frame.f_globals.get(self.parser_object_name)
            if parser is not None:
                return parser
            frame = frame.f_back
        raise RuntimeError(f"{self.func.__name__} is expanded in kernels only")


def inlined(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator of a part of a kernel: a function of a module that is expanded where a kernel calls it.

    Its arguments are expressions, buffers, and Python objects that hold them: ``state.count = x`` stores to the
    mutable scalar ``count``.
    """
    body = InlinedFunction(function)

    @wraps(function)
    def expand(*arguments: Any) -> None:
        body(*arguments)

    return expand

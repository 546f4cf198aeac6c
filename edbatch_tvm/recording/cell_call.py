"""What stands for a cell while elements run: calling it records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.breaks import told
from edbatch_tvm.recording.call_fast_paths import PATHS
from edbatch_tvm.recording.dropout import Dropout
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.held_objects import ChangesOthers
from edbatch_tvm.recording.masked_code import MaskedCode
from edbatch_tvm.recording.module_attributes import REBINDING, Attribute, StandsForCell, Written
from edbatch_tvm.recording.recurrent import Unrolls
from edbatch_tvm.recording.rows import Again
from relay_ext.from_torch import RandomCellError

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site


_is_any_autocast_enabled = torch._C._is_any_autocast_enabled


class CellCall(StandsForCell):
    """Stands for a submodule or method of the model while instances run: calling it records.

    Attributes
    ----------
    plain : callable
        What it stands for, for this instance: for calls that cannot be a cell.
    root : torch.nn.Module
        The instance's copy of the module that it belongs to.
    """

    __slots__ = ("recorder", "root", "site")

    def __init__(self, recorder: Recorder, site: Site, plain: Callable[..., Any], root: torch.nn.Module) -> None:
        self.recorder = recorder
        self.site = site
        self.plain = plain
        self.root = root

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Record one call."""
        site, recorder = self.site, self.recorder
        if _is_any_autocast_enabled() or recorder.finished or site.taken_apart:
            if site.dropout is not None and not recorder.finished and not _is_any_autocast_enabled():
                return self._with_masks(site.dropout, arguments, named)
            return self.plain(*arguments, **named)
        try:
            if named or site.reads:
                return self._recorded(site.positional(arguments, named) if named else arguments)
            path = PATHS[tuple(map(type, arguments))] if site.integers_vary else None
            try:
                result = path(recorder, site, *arguments) if path else recorder.call(site, arguments, self)
            except (KeyError, NoElements):  # of the path: not known yet, or recorded in another way
                result = recorder.call(site, arguments, self)
            kind = type(result)
            if kind is not Again and kind is not Written:
                return result
            return self._recorded(arguments) if kind is Again else self._written(result)
        except (CellError, Unrolls) as error:
            return self._refused(error, arguments, named)

    def otherwise(self, arguments: tuple[Any, ...], how: Any) -> Any:
        """Record one call that is known not to be one node; ``native_core`` comes here."""
        try:
            result = self.recorder.otherwise(self.site, arguments, how, self)
            kind = type(result)
            if kind is not Again and kind is not Written:
                return result
            return self._recorded(arguments) if kind is Again else self._written(result)
        except (CellError, Unrolls) as error:
            return self._refused(error, arguments, {})

    def _refused(self, error: Exception, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What a call that cannot be recorded returns: its operations may be recorded one by one."""
        if isinstance(error, RandomCellError):
            self.site.taken_apart = True
            if not isinstance(self.site.target, MaskedCode):
                self.site.dropout = Dropout(self.site)
                return self._with_masks(self.site.dropout, arguments, named)
        if isinstance(error, ChangesOthers):
            self.recorder.run_in_order(error.given)
        if isinstance(error, Unrolls):
            self.site.taken_apart = True
            return self.plain(*arguments, **named)
        result = self.plain(*arguments, **named)
        told(self.recorder, f"cell {self.site.name!r}", error)  # not where PyTorch fails, too: that says it all
        return result

    def _with_masks(self, dropout: Dropout, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Record a call of code that drops elements."""
        given = self.site.positional(arguments, named) if named else arguments
        try:
            masks = dropout.masks(self.recorder, given, self.root)
        except CellError as error:
            return self._refused(error, arguments, named)

        def plain(*rest: Any) -> Any:
            return self.plain(*rest[:-1])

        return CellCall(self.recorder, dropout.site, plain, self.root)(*given, masks)

    def _recorded(self, arguments: tuple[Any, ...]) -> Any:
        site, recorder = self.site, self.recorder
        while True:
            reads = site.reads
            given = (*arguments, *[_argument(one, self.root) for one in reads]) if reads else arguments
            result = recorder.call(site, given, self)
            if type(result) is not Again:
                return self._written(result) if type(result) is Written else result

    def _written(self, result: Written) -> Any:
        """What a call returned, once what it set is set."""
        for attribute, value in result.attributes:
            module, name = attribute.of(self.root)
            setattr(module, name, value)
        return result.result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.site.target, name)


def _argument(attribute: Attribute, root: torch.nn.Module) -> Any:
    """An attribute of an element's copy of a module, as an argument of a cell.

    Raises
    ------
    CellError
        If it is a function that holds the copy.
    """
    value = attribute.value(root)
    if callable(value) and REBINDING.holds(value):
        raise CellError(f"the code calls {str(attribute)!r}, which forward sets and which holds a module", "functions")
    return value


class CallAtOnce(CellCall):
    """The same for the first elements, which may change what the cell reads: a call is computed at once."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Record one call, and compute it if that is asked for."""
        result = CellCall.__call__(self, *arguments, **named)
        recorder = self.recorder
        if recorder.at_once and recorder.types and not recorder.finished:
            recorder.compute()
        return result

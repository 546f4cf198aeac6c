"""Classes of the copies of a model's modules: those of the model's own, but for what elements do to attributes."""

from __future__ import annotations

import copyreg
import sys
from functools import cache
from typing import Any

import torch

from edbatch_tvm.recording.followed_parameters import FollowedTensor
from edbatch_tvm.recording.held_objects import codes_of, is_of_user
from edbatch_tvm.recording.module_attributes import CELL, KEEPER, LOOK_UP
from edbatch_tvm.recording.recorded_parameters import RecordedParameter, RecordedParameters
from edbatch_tvm.recording.standing_classes import original, standing_for


@cache
def recording(kind: type) -> Any:
    """The class of copies of modules of class `kind`."""

    def __setattr__(self: Any, name: str, value: Any) -> None:
        keeper = vars(self).get(KEEPER)
        if keeper is not None:
            keeper.copies.sets(keeper, self, name, value)
        super(made, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        keeper = vars(self).get(KEEPER)
        if keeper is not None:
            keeper.copies.fetch(keeper, self, name)
            keeper.copies.sets(keeper, self, name)
        super(made, self).__delattr__(name)

    inherited: Any = kind.__getattr__  # type: ignore[attr-defined]
    usual = inherited is torch.nn.Module.__getattr__

    def __getattr__(self: Any, name: str) -> Any:
        own = self.__dict__
        keeper = own.get(KEEPER)
        if keeper is not None:
            carried = keeper.copies.carried.names
            if carried and (id(keeper.original), name) in carried:
                keeper.copies.fetch(keeper, self, name)
                if name in own:
                    return own[name]
        if usual:  # most often a module is looked up, and this is the last place where PyTorch looks
            module = own["_modules"].get(name) if "_modules" in own else None
            if module is not None:
                return module
        return inherited(self, name)

    methods: dict[str, Any] = {"__setattr__": __setattr__, "__delattr__": __delattr__, "__getattr__": __getattr__}
    methods["__reduce_ex__"] = _reduced
    if _reads_all(kind):
        methods["__dict__"] = property(_all_attributes, _set_all_attributes)
    asks = getattr(torch.nn.RNNBase, _ASKS, None)
    if asks is not None and getattr(kind, _ASKS, None) is asks:
        methods[_ASKS] = _weights_have_changed
    made: Any = standing_for(kind, methods)
    return made


def _reads_all(kind: type) -> bool:
    """Whether code of a class may read attributes of a module by ``vars()`` or ``__dict__``, where none is hidden."""
    functions = (value for base in kind.__mro__ if is_of_user(base) for value in vars(base).values())
    code = [getattr(one, "__code__", None) for one in functions]
    return any(not _ALL.isdisjoint(inner.co_names) for one in code if one is not None for inner in codes_of(one))


_ALL = frozenset({"vars", "__dict__"})
_own_attributes: Any = vars(torch.nn.Module)["__dict__"]


def _all_attributes(self: Any) -> Any:
    package = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
    return _own_attributes.__get__(self) if package in LOOK_UP else _none_hidden(self)


def _none_hidden(module: Any) -> dict[str, Any]:
    """The attributes of a copy, those included that elements before have set."""
    own: dict[str, Any] = _own_attributes.__get__(module)
    keeper: Any = own.get(KEEPER)
    for place, name in list(keeper.copies.carried.names) if keeper is not None else ():
        if place == id(keeper.original) and name not in own:
            keeper.copies.fetch(keeper, module, name)
    return own


def _reduced(self: Any, protocol: Any) -> Any:
    """What makes a copy of a copy, or a pickled one: a module of the model's own class that knows of no recording."""
    own = _none_hidden(self).copy()
    keeper = own.pop(KEEPER, None)
    own.pop(CELL, None)
    for name, value in list(own.items()):
        if callable(value) and type(value).__module__.startswith("edbatch_tvm.recording"):  # it stands for a cell
            inherited = name not in vars(keeper.original) if keeper is not None else True
            own.pop(name) if inherited else own.update({name: vars(keeper.original)[name]})
    own["_buffers"], own["_modules"] = dict(own["_buffers"]), own["_modules"].copy()
    parameters = own["_parameters"]
    own["_parameters"] = parameters.exposed() if isinstance(parameters, RecordedParameters) else parameters
    plain: Any = object.__new__(original(type(self)))
    _own_attributes.__set__(plain, own)
    found = plain.__reduce_ex__(protocol)
    # What pickles a module compares its class with that which is made, but for makers that it does not know.
    return (object.__new__, *found[1:]) if found[0] is copyreg.__newobj__ else found  # type: ignore[attr-defined]


def _set_all_attributes(self: Any, own: dict[str, Any]) -> None:
    _own_attributes.__set__(self, own)


_ASKS = "_weights_have_changed"
"""The method by which a recurrent layer of PyTorch asks whether it has other weights than when it ran last."""


def _weights_have_changed(self: Any) -> bool:
    """The same of the model's own weights.

    What a copy gives for its weights are recorded ones. Taken for others, each element would set the layer's list of
    weights, and read it only when those before it have ended.
    """
    held = vars(self)["_parameters"]
    for reference, name in zip(self._flat_weight_refs, self._flat_weights_names, strict=True):
        weight = dict.get(held, name)
        if weight is None:  # one that code has set or computed
            weight = getattr(self, name, None)
        if reference is not None and weight is not None and _own(reference()) is not _own(weight):
            return True
    return False


def _own(weight: Any) -> Any:
    return weight.parameter if isinstance(weight, RecordedParameter | FollowedTensor) else weight


class _LookedUpFirst:
    """An attribute that elements set and that the class has, too: looked up in what elements have set first."""

    def __init__(self, made: type, name: str) -> None:
        self._made = made
        self._name = name

    def __get__(self, module: Any, kind: Any = None) -> Any:
        if module is None:
            return getattr(super(self._made, kind), self._name)
        own, name = vars(module), self._name
        keeper = own.get(KEEPER)
        if name not in own and keeper is not None:
            keeper.copies.fetch(keeper, module, name)
        return own[name] if name in own else getattr(super(self._made, module), name)

    def __set__(self, module: Any, value: Any) -> None:
        vars(module)[self._name] = value

    def __delete__(self, module: Any) -> None:
        if self._name not in vars(module):
            raise AttributeError(self._name)
        del vars(module)[self._name]


def look_up_first(copy: torch.nn.Module, name: str) -> None:
    """Let an attribute of a copy be looked up in what elements have set, if its class has one of that name."""
    kind = original(type(copy))
    held = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    made = recording(kind)
    if held is not None and not hasattr(held, "__set__") and name not in vars(made):
        type.__setattr__(made, name, _LookedUpFirst(made, name))


@cache
def recording_cell(kind: type) -> Any:
    """The class of what stands for a submodule of class `kind` that is a cell: calling it records."""

    def __call__(self: Any, *arguments: Any, **named: Any) -> Any:
        return self.__dict__[CELL](*arguments, **named)

    return standing_for(recording(kind), {"__call__": __call__, "forward": __call__})

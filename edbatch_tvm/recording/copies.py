"""Copies of a model that record: the same parameters and code, but for the cells.

Every element has a copy of the model, of the modules on the way to cells, and of those whose attributes ``forward``
sets; all elements share copies of the others (:mod:`edbatch_tvm.recording.set_attributes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.recording.cell_call import CallAtOnce, CellCall
from edbatch_tvm.recording.encoder_layers import EncoderLayerCall, is_encoder_layer
from edbatch_tvm.recording.module import StandIn
from edbatch_tvm.recording.module_attributes import CELL, KEEPER
from edbatch_tvm.recording.module_copy_classes import recording, recording_cell
from edbatch_tvm.recording.rebinding import Rebinding
from edbatch_tvm.recording.recorded_parameters import RecordedParameters
from edbatch_tvm.recording.recurrent import RecurrentCall, is_recurrent_layer
from edbatch_tvm.recording.set_attributes import FLAT_WEIGHTS, Carried, Element, Keeper, SetAttributes, hide, slots_of
from edbatch_tvm.recording.shared_state import SharedState
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.uncompiled import IN_PLACE, original

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def _class_of(module: torch.nn.Module) -> Any:
    return type(module)


class _Buffers(dict[str, Any]):
    """The buffers of a copy: who puts one in here, or takes it out, sets an attribute."""

    def __init__(self, buffers: dict[str, Any], copy: torch.nn.Module) -> None:
        super().__init__(buffers)
        self._copy = copy

    def __setitem__(self, name: str, value: Any) -> None:
        self._sets(name, value)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self._sets(name, None)
        super().__delitem__(name)

    def update(self, *given: Any, **named: Any) -> None:
        """See :meth:`dict.update`."""
        for name, value in dict(*given, **named).items():
            self[name] = value

    def pop(self, name: str, *default: Any) -> Any:
        """See :meth:`dict.pop`."""
        if name in self:
            self._sets(name, None)
        return super().pop(name, *default)

    def _sets(self, name: str, value: Any) -> None:
        keeper = vars(self._copy).get(KEEPER)
        if keeper is not None:
            keeper.copies.sets(keeper, self._copy, name, value)


class Copies(SetAttributes):
    """The copies of a model for one minibatch.

    Parameters
    ----------
    model : Module
    sites : mapping of str to Site
    recorder : Recorder
    functions : sequence of callable
        Run the elements.
    carried : Carried
    wait : callable
        Lets other elements go on.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        sites: Mapping[str, Site],
        recorder: Recorder,
        functions: Sequence[Any],
        carried: Carried,
        wait: Callable[[], None],
    ) -> None:
        self._call = CallAtOnce if recorder.first else CellCall
        self.calls: dict[int, CellCall] = {
            id(site.target): self._call(recorder, site, site.target, model)
            for site in sites.values()
            if site.owner is None
        }
        super().__init__(sites, recorder, len(functions), carried, wait, Rebinding(self.calls))
        self._model = model
        self._cells = {id(site.target): site for site in sites.values() if isinstance(site.target, torch.nn.Module)}
        # Recurrent layers are recorded whether they are listed or not: outside of cells, or in one that is taken apart.
        for path, module in model.named_modules():
            if is_recurrent_layer(module):
                self._cells[id(module)] = self._cells.get(id(module)) or Site(path, module, module)
        self._methods: dict[int, list[Site]] = {}
        for site in sites.values():
            if not isinstance(site.target, torch.nn.Module) and site.owner is not None:
                self._methods.setdefault(id(site.owner), []).append(site)
        self._own = self._elements_own()
        self._shared_state = SharedState(model, functions)
        # The first elements find out what they change, with or without others.
        if functions and recorder.library.code.model is None:
            self._shared_state.note()

    def _elements_own(self) -> set[int]:
        """The modules that every element has a copy of.

        Those that contain a cell, those with attributes that elements set, and those that hold one of these otherwise.
        """
        modules = dict(self._model.named_modules(remove_duplicate=False))
        contain = {id(site.owner) for site in self._sites.values() if site.owner is not None}
        own = {id(self._model)} | {module for module, _ in self.carried.names} | self._methods.keys()
        links = self._rebinding
        held = {id(one): {by for _, value in links.links(one) for by in links.held(value)} for one in modules.values()}
        before = -1
        while len(own) > before:
            before = len(own)
            for path, module in modules.items():
                if id(module) in own or id(module) in contain:
                    while path:
                        path = path.rpartition(".")[0]
                        own.add(id(modules[path]))
            own |= {one for one, holds in held.items() if not holds.isdisjoint(own)}
        return own

    # Copies -----------------------------------------------------------------------------------------------------

    def of(self, number: int) -> torch.nn.Module:
        """The model of one element."""
        element = self.elements[number]
        copy = self._copy(self._model, element)
        for place, name in self.carried.names:
            if number and place in element.modules:
                hide(element.modules[place], name)
        return copy

    def _copy(self, module: torch.nn.Module, element: Element, plain: bool = False) -> Any:
        """The copy of a module that an element sees; `plain` for a cell as it is, not what stands for it."""
        module = original(module)
        holder = element if id(module) in self._own else self._shared
        site = None if plain else self._cells.get(id(module))
        if site is not None:
            known = holder.modules.get(-id(module))
            return known if known is not None else self._cell_copy(module, site, element, holder)
        known = holder.modules.get(id(module))
        if known is not None:
            return known
        if isinstance(module, torch.jit.ScriptModule | StandIn):
            return module
        copy = self._shallow(module, recording(_class_of(module)), holder)
        holder.modules[id(module)] = copy
        self._fill(copy, module, element)
        for method in self._methods.get(id(module), ()):
            name = method.name.rpartition(".")[2]
            found = getattr(type(module), name, None)
            function = vars(copy)[name] if found is None or name in vars(module) else found.__get__(copy)
            vars(copy)[name] = self._call(self._recorder, method, function, copy)
        if is_encoder_layer(module):
            vars(copy)["forward"] = EncoderLayerCall(self._recorder, module, copy.forward)
        vars(copy)[KEEPER] = Keeper(self, None if holder is self._shared else holder, module, copy)
        return copy

    def _cell_copy(self, module: torch.nn.Module, site: Site, element: Element, holder: Element) -> torch.nn.Module:
        copy: Any = object.__new__(recording_cell(_class_of(module)))
        holder.modules[-id(module)] = copy
        plain = self._copy(module, element, plain=True)
        # What is set on one is set on the other.
        copy.__dict__ = vars(module).copy() if plain is module else vars(plain)
        if is_recurrent_layer(module):
            vars(copy)[CELL] = RecurrentCall(self._recorder, site, plain)
        else:
            vars(copy)[CELL] = self._call(self._recorder, site, plain, plain)
        return copy

    def _shallow(self, module: torch.nn.Module, kind: Any, holder: Element) -> Any:
        copy = object.__new__(kind)
        own = vars(module).copy()
        own["_modules"] = own["_modules"].copy()
        own["_buffers"] = _Buffers(own["_buffers"], copy)
        if FLAT_WEIGHTS in own:
            own[FLAT_WEIGHTS] = list(own[FLAT_WEIGHTS])
        if own["_parameters"]:
            set_other = partial(self.take_apart, module)
            own["_parameters"] = RecordedParameters(own["_parameters"], self._recorder, set_other)
        copy.__dict__ = own
        return copy

    def _fill(self, copy: torch.nn.Module, module: torch.nn.Module, element: Element) -> None:
        """Let a copy contain copies, also in lists and dicts."""
        own = vars(copy)
        below = own["_modules"]
        for name, one in below.items():
            if one is not None:
                below[name] = self._copy(one, element)
        for name, value in self._rebinding.links(module):
            own[name] = self._rebinding.rebound(value, lambda one: self._copy(one, element))
        own.pop(IN_PLACE, None)

    def check(self, rounds: int, variable: str) -> None:
        """Check that what the elements did to what they share is what they would have done one after the other.

        Parameters
        ----------
        rounds : int
            How often something was computed.
        variable : str
            A context variable that an element had changed in the end, after it waited; "" if there is none.

        Raises
        ------
        RecordingError
            Naming what they share.
        """
        if rounds < 2:
            return
        reason = f"elements that wait for values change the context variable {variable!r}" if variable else ""
        reason = reason or self._shared_state.order_matters()
        if len(self.elements) < 2:
            self.carried.in_order = self.carried.in_order or reason
            return
        if self._late is not None:
            raise self._late
        if reason:
            self.carried.run_in_order(len(self.elements), reason)

    @property
    def draws_random_numbers(self) -> bool:
        """Whether elements have drawn random numbers."""
        return self._shared_state.draws_random_numbers

    def before_wait(self) -> None:
        """An element waits, the first to do so."""
        self._shared_state.note()

    def after_round(self) -> None:
        """Every element has gone on as far as it could."""
        self._shared_state.look()

    def let_go(self) -> None:
        """Take the copies out of the cycles that they are in: the garbage collector may come to them late or never.

        One that somebody has kept is from now on a module like others.
        """
        for element in (self._shared, *self.elements):
            for copy in element.modules.values():
                own = vars(copy)
                if CELL in own:
                    object.__setattr__(copy, "__class__", recording(_class_of(copy)))
                keeper = own.get(KEEPER)
                if keeper is None:
                    continue
                for place, name in self.carried.names:
                    if place == id(keeper.original) and all(name not in slot for slot in slots_of(copy)):
                        self.fetch(keeper, copy, name)
                for method in self._methods.get(id(keeper.original), ()):
                    name = method.name.rpartition(".")[2]
                    if name in vars(keeper.original):
                        own[name] = vars(keeper.original)[name]
                    elif isinstance(own.get(name), CellCall):
                        del own[name]
                own["_buffers"] = dict(own["_buffers"])
                del own[KEEPER]
            for copy in element.modules.values():
                vars(copy).pop(CELL, None)
            element.modules, element.changed = {}, {}

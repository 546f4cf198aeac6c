"""Copies of a model that record: the same parameters and code, but for the cells.

Every element has a copy of the model, of the modules on the way to cells, and of those whose attributes ``forward``
sets; all elements share copies of the others. What an element sets, the elements after it find, as if they ran one
after the other: one that reads such an attribute before it has set it waits until those before it are done. In the end
the model has what the last element has set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.failures import in_element
from edbatch_tvm.recording.module import StandIn
from edbatch_tvm.recording.module_attributes import KEEPER
from edbatch_tvm.recording.module_copy_classes import CELL, recording, recording_cell
from edbatch_tvm.recording.rebinding import Rebinding
from edbatch_tvm.recording.recorded_parameters import RecordedParameters, own_parameter
from edbatch_tvm.recording.recurrent import RecurrentCall, is_recurrent_layer
from edbatch_tvm.recording.shared_state import SharedState
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.source_locations import users_place

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


class Carried:
    """What is known of attributes that ``forward`` sets, from call to call.

    Attributes
    ----------
    names : set of (int, str)
        The id of a module, and an attribute of it.
    in_order : str
        Why elements cannot run together; "" if they can.
    """

    def __init__(self) -> None:
        self.names: set[tuple[int, str]] = set()
        self.in_order = ""

    def run_in_order(self, running: int, reason: str) -> None:
        """Have PyTorch run elements one after the other from now on: what they do depends on that.

        Raises
        ------
        RecordingError
            If several are running.
        """
        self.in_order = reason
        if running > 1:
            raise RecordingError(
                f"{reason}: not what they do one after the other",
                "what each element has for itself, and random numbers that are drawn before values are read",
                "call again: PyTorch will run the elements one after the other",
            )


class _Keeper:
    """Whose a copy is.

    Attributes
    ----------
    element : Element or None
        None if all elements share it.
    original : Module
    """

    __slots__ = ("copies", "element", "original")

    def __init__(self, copies: Copies, element: Element | None, original: torch.nn.Module) -> None:
        self.copies = copies
        self.element = element
        self.original = original


class Element:
    """The copies that one element has for itself.

    Attributes
    ----------
    modules : dict of int to Module
        By the id of the original.
    changed : dict of (int, str) to Module
        The copy that has the attribute that the element has set.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.modules: dict[int, torch.nn.Module] = {}
        self.changed: dict[tuple[int, str], torch.nn.Module] = {}
        self.started = False
        self.ended = False


def _class_of(module: torch.nn.Module) -> Any:
    return type(module)


class Copies:
    """The copies of a model for one minibatch.

    Parameters
    ----------
    model : Module
    sites : mapping of str to Site
    recorder : Recorder
    count : int
        Number of elements.
    carried : Carried
    wait : callable
        Lets other elements go on.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        sites: Mapping[str, Site],
        recorder: Recorder,
        count: int,
        carried: Carried,
        wait: Callable[[], None],
    ) -> None:
        self.carried = carried
        self._model = model
        self._recorder = recorder
        self._wait = wait
        self._sites = sites
        self._cells = {id(site.target): site for site in sites.values() if isinstance(site.target, torch.nn.Module)}
        # Recurrent layers are recorded whether they are listed or not: outside of cells, or in one that is taken apart.
        for path, module in model.named_modules():
            if is_recurrent_layer(module):
                self._cells[id(module)] = self._cells.get(id(module)) or Site(path, module, module)
        self._methods: dict[int, list[Site]] = {}
        for site in sites.values():
            if not isinstance(site.target, torch.nn.Module) and site.owner is not None:
                self._methods.setdefault(id(site.owner), []).append(site)
        self.calls: dict[int, CellCall] = {
            id(site.target): CellCall(recorder, site, site.target, model)
            for site in sites.values()
            if site.owner is None
        }
        self._rebinding = Rebinding(self.calls)
        self._own = self._elements_own()
        self._shared = Element(-1)
        self._plain: dict[int, torch.nn.Module] = {}
        self._late: RecordingError | None = None
        self.first = 0  # the number of the first element in the minibatch
        self.elements = [Element(number) for number in range(count)]
        self._shared_state = SharedState(model, recorder.library.model is None)

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
                _hide(element.modules[place], name)
        return copy

    def _copy(self, module: torch.nn.Module, element: Element, plain: bool = False) -> Any:
        """The copy of a module that an element sees; `plain` for a cell as it is, not what stands for it."""
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
            vars(copy)[name] = CellCall(self._recorder, method, function, copy)
        vars(copy)[KEEPER] = _Keeper(self, None if holder is self._shared else holder, module)
        return copy

    def _cell_copy(self, module: torch.nn.Module, site: Site, element: Element, holder: Element) -> torch.nn.Module:
        copy = self._shallow(module, recording_cell(_class_of(module)), holder)
        holder.modules[-id(module)] = copy
        plain = self._copy(module, element, plain=True)
        vars(copy)["_modules"] = vars(plain)["_modules"] if plain is not module else vars(module)["_modules"]
        if is_recurrent_layer(module):
            vars(copy)[CELL] = RecurrentCall(self._recorder, site)
        else:
            vars(copy)[CELL] = CellCall(self._recorder, site, plain, plain)
        return copy

    def _shallow(self, module: torch.nn.Module, kind: Any, holder: Element) -> Any:
        copy = object.__new__(kind)
        own = vars(module).copy()
        own["_modules"] = own["_modules"].copy()
        own["_buffers"] = own["_buffers"].copy()
        if own["_parameters"]:
            own["_parameters"] = RecordedParameters(own["_parameters"], self._recorder)
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

    # Attributes that are set ------------------------------------------------------------------------------------

    def sets(self, keeper: _Keeper, copy: torch.nn.Module, name: str) -> None:
        """An element sets an attribute."""
        self._recorder.modules.clear()
        place = id(keeper.original), name
        element = keeper.element
        if element is None:
            self._shared.changed[place] = copy
            if place not in self.carried.names:
                self.carried.names.add(place)
                self._set_late(keeper, name)
        else:
            element.changed[place] = copy
            if place not in self.carried.names:
                self.carried.names.add(place)
                for later in self.elements[element.number + 1 :]:
                    if later.started:
                        self._set_late(keeper, name)
                    elif place[0] in later.modules:
                        _hide(later.modules[place[0]], name)
        for site in self._sites.values():
            for attribute in list(site.constants):
                if site.owner is not None and attribute.name == name:
                    module, _ = attribute.of(site.owner)
                    if module is keeper.original:
                        site.read(attribute)

    def _set_late(self, keeper: _Keeper, name: str) -> None:
        if self._late is None:
            self._late = RecordingError(
                f"forward sets {type(keeper.original).__name__}.{name} for the first time while other elements run",
                "an attribute that is set in every element",
                "call again: it is known now",
            )
            file, line = users_place()
            element = keeper.element
            where = "" if element is None else f", {in_element(element.number + self.first)}"
            self._late.locate(f"{file}:{line}{where}")

    def fetch(self, keeper: _Keeper, copy: torch.nn.Module, name: str) -> None:
        """An element reads an attribute that it has not set: what the elements before it leave."""
        place = id(keeper.original), name
        element = keeper.element
        if element is None or place in element.changed:
            return
        before = self.elements[: element.number]
        while not all(one.ended for one in before):
            self._wait()
        for one in reversed(before):
            if place in one.changed:
                found = vars(one.changed[place])
                slot = next((slot for slot in _slots(found) if name in slot), None)
                if slot is not None:
                    vars(copy)[name] = slot[name]
                return
        slot = next((slot for slot in _slots(vars(keeper.original)) if name in slot), None)
        if slot is not None:
            vars(copy)[name] = slot[name]

    def check(self, rounds: int) -> None:
        """Check that what the elements did to what they share is what they would have done one after the other.

        Raises
        ------
        RecordingError
            Naming what they share.
        """
        if rounds < 2:
            return
        if len(self.elements) < 2:
            self.carried.in_order = self.carried.in_order or self._shared_state.order_matters(self._model)
            return
        if self._late is not None:
            raise self._late
        reason = self._shared_state.order_matters(self._model)
        if reason:
            self.carried.run_in_order(len(self.elements), reason)

    @property
    def draws_random_numbers(self) -> bool:
        """Whether elements have drawn random numbers."""
        return self._shared_state.draws_random_numbers

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
                keeper = own.get(KEEPER)
                if keeper is None:
                    continue
                for place, name in self.carried.names:
                    if place == id(keeper.original) and all(name not in slot for slot in _slots(own)):
                        self.fetch(keeper, copy, name)
                for method in self._methods.get(id(keeper.original), ()):
                    name = method.name.rpartition(".")[2]
                    if name in vars(keeper.original):
                        own[name] = vars(keeper.original)[name]
                    elif type(own.get(name)) is CellCall:
                        del own[name]
                del own[KEEPER]
            element.modules, element.changed = {}, {}

    def leave(self, computed: Callable[[Any], Any]) -> None:
        """Let the model have the attributes that elements have set, as the last of them has."""
        done: set[tuple[int, str]] = set()
        for element in (self._shared, *reversed(self.elements)):
            for place, copy in element.changed.items():
                if place in done:
                    continue
                done.add(place)
                keeper, name = vars(copy)[KEEPER], place[1]
                slot = next((slot for slot in _slots(vars(copy)) if name in slot), None)
                if slot is None:
                    continue
                value = computed(slot[name])
                if isinstance(value, torch.nn.Module):
                    continue
                original = vars(keeper.original)
                if name in original["_buffers"]:
                    original["_buffers"][name] = value
                elif isinstance(value, torch.nn.Parameter) and name in original["_parameters"]:
                    original["_parameters"][name] = own_parameter(value)
                else:
                    original[name] = value


def fetch_all(root: torch.nn.Module) -> None:
    """Let the modules below `root`, copies, have the attributes that the elements before leave."""
    for module in root.modules():
        keeper = vars(module).get(KEEPER)
        if keeper is not None:
            for place, name in list(keeper.copies.carried.names):
                if place == id(keeper.original) and name not in vars(module):
                    keeper.copies.fetch(keeper, module, name)


def _slots(own: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return own, own["_buffers"], own["_parameters"]


def _hide(copy: torch.nn.Module, name: str) -> None:
    """Let reading an attribute ask for it."""
    vars(copy).pop(name, None)
    vars(copy)["_buffers"].pop(name, None)

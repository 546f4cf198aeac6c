"""Attributes that elements set on their copies of a model: what later elements find, and what the model has in the end.

What an element sets, deletes or registers (parameters and buffers included), the elements after it find as if they ran
one after the other: one that reads such an attribute before it has set it waits until those before it are done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording.breaks import told
from edbatch_tvm.recording.failures import in_element
from edbatch_tvm.recording.module_attributes import KEEPER
from edbatch_tvm.recording.module_copy_classes import look_up_first
from edbatch_tvm.recording.rebinding import Rebinding
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.site import Site, code_sites
from edbatch_tvm.recording.source_locations import users_place
from edbatch_tvm.recording.standing_classes import original

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

FLAT_WEIGHTS = "_flat_weights"
"""The attribute in which a recurrent layer has its weights once more."""

_HIDDEN = 2
"""How many of :func:`slots_of` hide what elements before may set; parameters and submodules are also iterated over."""


class Carried:
    """What is known of attributes that ``forward`` sets, from call to call.

    Attributes
    ----------
    names : set of (int, str)
        The id of a module, and an attribute of it.
    moving : set of (int, str)
        The buffers that it changes, in whatever way.
    in_order : str
        Why elements cannot run together; "" if they can.
    """

    def __init__(self) -> None:
        self.names: set[tuple[int, str]] = set()
        self.moving: set[tuple[int, str]] = set()
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


class Keeper:
    """Whose a copy is.

    Attributes
    ----------
    element : Element or None
        None if all elements share it.
    original : Module
    """

    __slots__ = ("copies", "element", "known", "original")

    def __init__(
        self, copies: SetAttributes, element: Element | None, original: torch.nn.Module, copy: torch.nn.Module
    ) -> None:
        self.copies = copies
        self.element = element
        self.original = original
        self.known = tuple(dict(dict.items(slot)) for slot in slots_of(copy))  # but for what elements have set

    def put(self, copy: torch.nn.Module, slot: int, name: str, value: Any) -> None:
        """Let the copy have an attribute that another has."""
        dict.__setitem__(slots_of(copy)[slot], name, value)
        self.known[slot][name] = value

    def hide(self, copy: torch.nn.Module, name: str) -> None:
        """Let reading an attribute ask for it."""
        for slot in (*slots_of(copy)[:_HIDDEN], *self.known[:_HIDDEN]):
            dict.pop(slot, name, None)

    def set_unseen(self, copy: torch.nn.Module) -> Iterator[str]:
        """Attributes of the copy that were set in another way than by ``setattr``, or were set by it."""
        for now, known in zip(slots_of(copy), self.known, strict=True):
            if len(now) == len(known) and all(map(is_, dict.values(now), known.values())):
                continue
            for name in [*now, *known]:
                if (name not in now or name not in known or dict.get(now, name) is not known[name]) and (
                    not name.startswith("_edbatch")
                ):
                    yield name


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


class SetAttributes:
    """What elements set, of the copies of a model for one minibatch.

    Parameters
    ----------
    sites : mapping of str to Site
    recorder : Recorder
    count : int
        Number of elements.
    carried : Carried
    wait : callable
        Lets other elements go on.
    rebinding : Rebinding
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        recorder: Recorder,
        count: int,
        carried: Carried,
        wait: Callable[[], None],
        rebinding: Rebinding,
    ) -> None:
        self.carried = carried
        self._recorder = recorder
        self._wait = wait
        self._sites = sites
        self._rebinding = rebinding
        self._shared = Element(-1)
        self._late: RecordingError | None = None
        self.first = 0  # the number of the first element in the minibatch
        self.elements = [Element(number) for number in range(count)]

    def sets(self, keeper: Keeper, copy: torch.nn.Module, name: str, value: Any = None) -> None:
        """An element sets an attribute, or deletes it."""
        self._recorder.modules.clear()
        self._recorder.weights.clear()
        if name == "training" and value != keeper.original.training:
            self.take_apart(keeper.original, name)
        if isinstance(value, torch.nn.Module | torch.nn.Parameter) and len(self.elements) > 1:
            original_of_value = vars(value).get(KEEPER)
            own = own_parameter(value) if original_of_value is None else original_of_value.original
            if all(own is not dict.get(slot, name) for slot in slots_of(keeper.original)[_HIDDEN:]):
                kind = "module" if isinstance(value, torch.nn.Module) else "parameter"
                self.carried.run_in_order(len(self.elements), f"forward sets {_name_of(keeper, name)}, a {kind}")
        place = id(keeper.original), name
        element = keeper.element
        if name in keeper.original._buffers:
            self.carried.moving.add(place)
        (element or self._shared).changed[place] = copy
        if place not in self.carried.names:
            self.carried.names.add(place)
            look_up_first(copy, name)
            if element is None:
                self._set_late(keeper, name)
            for later in self.elements[element.number + 1 :] if element is not None else ():
                if later.started:
                    self._set_late(keeper, name)
                elif place[0] in later.modules:
                    hide(later.modules[place[0]], name)
        for site in code_sites(self._sites.values()):
            for attribute in list(site.constants):
                if site.owner is not None and attribute.name == name:
                    module, _ = attribute.of(site.owner)
                    if module is keeper.original:
                        site.read(attribute)

    def take_apart(self, module: torch.nn.Module, name: str) -> None:
        """Record what cells do operation by operation: an element sets the mode or parameters of a module in them."""
        for site in self._sites.values():
            if not site.taken_apart and (site.owner is None or any(module is one for one in site.owner.modules())):
                site.taken_apart, site.dropout = True, None
                reason = CellError(f"forward sets {type(module).__name__}.{name}", "what cells are compiled for")
                told(self._recorder, f"cell {site.name!r}", reason)

    def note_unseen(self, element: Element | None = None) -> None:
        """Note what an element, or what all share, was given without ``setattr``: in ``__dict__``, or a buffer."""
        holder = element or self._shared
        for copy in list(holder.modules.values()):
            keeper = vars(copy).get(KEEPER)
            for name in keeper.set_unseen(copy) if keeper is not None else ():
                place = id(keeper.original), name
                if isinstance(getattr(original(type(copy)), name, None), functools.cached_property):
                    holder.changed[place] = copy  # every element may make its own: the model keeps the last
                elif place not in holder.changed:
                    slot = _slot_with(copy, name)
                    self.sets(keeper, copy, name, None if slot is None else slots_of(copy)[slot].get(name))

    def _set_late(self, keeper: Keeper, name: str) -> None:
        if self._late is None:
            self._late = RecordingError(
                f"forward sets {_name_of(keeper, name)} for the first time while other elements run",
                "an attribute that is set in every element",
                "call again: it is known now",
            )
            file, line = users_place()
            element = keeper.element
            where = "" if element is None else f", {in_element(element.number + self.first)}"
            self._late.locate(f"{file}:{line}{where}")

    def fetch(self, keeper: Keeper, copy: torch.nn.Module, name: str) -> None:
        """An element reads an attribute that it has not set: what the elements before it leave."""
        place = id(keeper.original), name
        element = keeper.element
        if element is None or place in element.changed or place not in self.carried.names:
            return
        before = self.elements[: element.number]
        while not all(one.ended for one in before):
            self._wait()
        for one in reversed(before):
            if place in one.changed:
                _pass_on(one.changed[place], keeper, copy, name)
                return
        _pass_on(keeper.original, keeper, copy, name)

    def leave(self, computed: Callable[[Any], Any], last: int | None = None) -> None:
        """Let the model have the attributes that elements have set, as the last of them has.

        Parameters
        ----------
        computed : callable
            Computes what is recorded in a value.
        last : int, optional
            The number of the last element that counts, if it is not the last of all.
        """
        done: set[tuple[int, str]] = set()
        elements = self.elements if last is None else self.elements[: last + 1]
        for element in (self._shared, *reversed(elements)):
            for place, copy in element.changed.items():
                if place in done:
                    continue
                done.add(place)
                name, into = place[1], slots_of(vars(copy)[KEEPER].original)
                slot = _slot_with(copy, name)
                for one in into:
                    if slot is None and name in one:
                        del one[name]
                if slot is None:
                    continue
                value = self._of_model(computed(dict.__getitem__(slots_of(copy)[slot], name)))
                own, buffers, parameters, modules = into
                if name in own.get(f"{FLAT_WEIGHTS}_names", ()):
                    own[FLAT_WEIGHTS][own[f"{FLAT_WEIGHTS}_names"].index(name)] = value
                if isinstance(value, torch.nn.Module):
                    for one in into:
                        one.pop(name, None)
                    modules[name] = value
                    self.carried.names.discard(place)  # what is made once is not set again
                elif name in buffers or slot == 1:
                    buffers[name] = value
                elif isinstance(value, torch.nn.Parameter) and (name in parameters or slot == 2):
                    own.pop(name, None)
                    parameters[name] = own_parameter(value)
                else:
                    own[name] = value

    def _of_model(self, value: Any) -> Any:
        """`value` with modules of the model in the place of copies of them."""

        def of_model(module: torch.nn.Module) -> torch.nn.Module:
            keeper = vars(module).get(KEEPER)
            if keeper is not None:
                found: torch.nn.Module = keeper.original
                return found
            for name, below in module._modules.items():
                if below is not None:
                    module._modules[name] = of_model(below)
            return module

        return self._rebinding.rebound(value, of_model)


def _name_of(keeper: Keeper, name: str) -> str:
    return f"{type(keeper.original).__name__}.{name}"


def slots_of(module: torch.nn.Module) -> tuple[dict[str, Any], ...]:
    """Where a module has attributes: its own, buffers, parameters and submodules."""
    own = vars(module)
    return own, own["_buffers"], own["_parameters"], own["_modules"]


def _slot_with(module: torch.nn.Module, name: str) -> int | None:
    return next((number for number, slot in enumerate(slots_of(module)) if name in slot), None)


def _pass_on(module: torch.nn.Module, keeper: Keeper, copy: torch.nn.Module, name: str) -> None:
    """Let a copy have an attribute that a module may have."""
    slot = _slot_with(module, name)
    if slot is not None:
        keeper.put(copy, slot, name, dict.__getitem__(slots_of(module)[slot], name))


def hide(copy: torch.nn.Module, name: str) -> None:
    """Let reading an attribute ask for it."""
    keeper = vars(copy).get(KEEPER)
    if keeper is not None:
        keeper.hide(copy, name)


def fetch_all(root: torch.nn.Module) -> None:
    """Let the modules below `root`, copies, have the attributes that the elements before leave."""
    for module in root.modules():
        keeper = vars(module).get(KEEPER)
        if keeper is not None:
            for place, name in list(keeper.copies.carried.names):
                if place == id(keeper.original) and name not in vars(module):
                    keeper.copies.fetch(keeper, module, name)

"""The recorder: calls of cells, of all instances in flight, as flat lists.

A recorded call appends a few numbers and makes one object for each output; everything else happens when the graph is
computed, on arrays (:mod:`edbatch_tvm.recording.flush`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, float32

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording import tensor_ops
from edbatch_tvm.recording.arguments import INTEGER, Key, key_of_constant, key_of_tensor
from edbatch_tvm.recording.flush import NO_VERSION
from edbatch_tvm.recording.lazy import LazyRows, LazyTensor, is_lazy, is_tensor
from edbatch_tvm.recording.parameters import RecordedParameter, own_parameter
from edbatch_tvm.recording.specs import TensorSpec, spec_of_tensor

if TYPE_CHECKING:
    from edbatch_tvm.recording.flush import Epoch
    from edbatch_tvm.recording.library import Library, Site

_new = object.__new__


class Recorder:
    """What the instances of one minibatch have recorded.

    Values are numbered from 0 over all flushes; ``-1 - i`` is tensor i of :attr:`externals`.

    Attributes
    ----------
    recorded, done : int
        Number of values recorded, and of those computed.
    types, ends, operands : list of int
        What is not computed yet: the type of every node, where its operands end, and all operands.
    attributes : dict of int to list
        The attributes of every type, node after node.
    externals : list of tuple
        Tensors that entered from outside, their specs, and how often each had been changed in place by then.
    external_number : dict of int to int
        The last number of a tensor from outside, by its id.
    parameters : dict of int to RecordedParameter
        What ``forward`` sees of the model's parameters, by the id of each.
    viewed : set of int
        Values that are seen through more than one tensor.
    epochs : list of Epoch
        What has been computed.
    """

    __slots__ = (
        *("attributes", "done", "ends", "epochs", "external_number", "externals", "library", "operands"),
        *("parameters", "recorded", "types", "viewed", "wait"),
    )

    def __init__(self, library: Library, wait: Callable[[], None]) -> None:
        self.library = library
        self.wait = wait
        self.recorded = 0
        self.done = 0
        self.types: list[int] = []
        self.ends: list[int] = []
        self.operands: list[int] = []
        self.attributes: defaultdict[int, list[Any]] = defaultdict(list)
        self.externals: list[tuple[torch.Tensor, TensorSpec, int]] = []
        self.external_number: dict[int, int] = {}
        self.parameters: dict[int, RecordedParameter] = {}
        self.viewed: set[int] = set()
        self.epochs: list[Epoch] = []

    # Recording --------------------------------------------------------------------------------------------------

    def call(self, site: Site, arguments: tuple[Any, ...]) -> Any:
        """Record one call of a cell."""
        # What every call passes through: no more function calls and objects than it takes.
        step = site.steps
        operands: list[int] = []
        attributes: list[Any] = []
        rows = -1
        vary = site.integers_vary
        try:
            for argument in arguments:
                kind = type(argument)
                if kind is LazyTensor and argument.recorder is self:
                    step = step[argument.spec]
                    operands.append(argument.value)
                elif kind is LazyRows and argument.recorder is self and (rows == -1 or rows == len(argument.values)):
                    rows = len(argument.values)
                    step = step[argument.spec]
                    operands += argument.values
                elif kind is Tensor and vary:
                    if argument.dtype is float32:
                        number = self._external(argument)
                        step = step[self.externals[-1 - number][1]]
                        operands.append(number)
                    else:
                        part = key_of_tensor(argument)
                        step = step[part]
                        # A number is read while it is at hand.
                        attributes.append(argument if part[2] else argument.item())
                elif kind is int and vary:
                    step = step[INTEGER]
                    attributes.append(argument)
                else:
                    key: list[Any] = []
                    if kind is list and vary and argument and (rows == -1 or rows == len(argument)):
                        if self._describe_list(argument, key, operands, attributes):
                            rows = len(argument)
                    else:
                        self._describe(argument, key, operands, attributes, vary)
                    for part in key:
                        step = step[part]
            type_id, outputs, returned = step[None]
        except KeyError:
            cell, operands, attributes = self.library.specialise(self, site, arguments)
            type_id, outputs, returned = cell.made
        self.types.append(type_id)
        self.operands += operands
        self.ends.append(len(self.operands))
        if attributes:
            self.attributes[type_id] += attributes
        value = self.recorded
        self.recorded = value + len(outputs)
        if returned is None:
            tensor: Any = _new(LazyTensor)
            tensor.recorder = self
            tensor.value = value
            tensor.spec = outputs[0]
            return tensor
        made = []
        for spec in outputs:
            tensor = _new(LazyTensor)
            tensor.recorder = self
            tensor.value = value
            tensor.spec = spec
            made.append(tensor)
            value += 1
        return returned(made)

    def described(
        self, arguments: tuple[Any, ...], integers_vary: bool, fixed_rows: bool = False
    ) -> tuple[Key, list[int], list[Any]]:
        """The key of a call, the values it reads and its attributes; see :mod:`edbatch_tvm.recording.arguments`.

        In step with :meth:`call`, but for `fixed_rows`: no operand is variadic.
        """
        key: list[Any] = []
        operands: list[int] = []
        attributes: list[Any] = []
        rows = -1
        for argument in arguments:
            kind = type(argument)
            if kind is LazyTensor and argument.recorder is self:
                key.append(argument.spec)
                operands.append(argument.value)
            elif kind is LazyRows and rows in (-1, len(argument.values)) and not fixed_rows:
                # All variadic operands of a call have one number of rows; others are stacked inside.
                rows = len(argument.values)
                key.append(argument.spec)
                operands += argument.values if argument.recorder is self else map(self.value_of, argument.rows())
            elif kind is list and integers_vary and argument and rows in (-1, len(argument)) and not fixed_rows:
                if self._describe_list(argument, key, operands, attributes):
                    rows = len(argument)
            else:
                self._describe(argument, key, operands, attributes, integers_vary)
        return tuple(key), operands, attributes

    def _describe_list(self, argument: list[Any], key: list[Any], operands: list[int], attributes: list[Any]) -> bool:
        """Append a list: as a list of any length if its elements are alike, and else element by element."""
        pairs = type(argument[0]) is tuple
        if pairs and all(type(item) is tuple and len(item) == len(argument[0]) for item in argument):
            columns = list(zip(*argument, strict=True))
        else:
            columns = [tuple(argument)]
        parts: list[LazyRows] = []
        if all(is_tensor(item) for column in columns for item in column):
            stacked = (tensor_ops.as_rows(self, "stack", column) for column in columns)
            parts = [part for part in stacked if part is not None]
        if len(parts) != len(columns):
            self._describe(argument, key, operands, attributes, True)
            return False
        key.append(("listed", len(parts), pairs))
        for part in parts:
            key.append(part.spec)
            operands += part.values
        return True

    def _describe(
        self, argument: Any, key: list[Any], operands: list[int], attributes: list[Any], integers_vary: bool
    ) -> None:
        kind = type(argument)
        if kind is LazyTensor:
            key.append(argument.spec)
            operands.append(self.value_of(argument))
        elif kind is LazyRows:
            key.append(("stack", len(argument.values), argument.spec))
            operands += [self.value_of(row) for row in argument.rows()]
        elif isinstance(argument, torch.Tensor):
            argument = own_parameter(argument)
            path = None if integers_vary else self.library.path_of(argument)
            if path is not None:
                key.append(("weight", path))
            elif argument.is_floating_point():
                number = self.value_of(argument)
                key.append(self.externals[-1 - number][1])
                operands.append(number)
            else:
                key.append(key_of_tensor(argument))
                attributes.append(argument)
        elif kind is int and integers_vary:
            key.append(INTEGER)
            attributes.append(argument)
        elif kind is tuple or kind is list or isinstance(argument, tuple):
            key.append(("list" if kind is list else "tuple", len(argument)))
            for item in argument:
                self._describe(item, key, operands, attributes, integers_vary)
        elif kind is dict:
            key.append(("dict", tuple(argument)))
            for item in argument.values():
                self._describe(item, key, operands, attributes, integers_vary)
        else:
            key.append(key_of_constant(argument))

    def value_of(self, tensor: Any) -> int:
        """The number of a recorded tensor, or of a tensor from outside."""
        if type(tensor) is LazyTensor:
            if tensor.recorder is self:
                return tensor.value
            tensor = tensor.computed()
        elif is_lazy(tensor):
            raise RecordingError("a list of stacked tensors", "a list of tensors")
        return self._external(own_parameter(tensor))

    def is_as_passed(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor from outside has not been changed since it was passed."""
        return self.externals[-1 - self.external_number[id(tensor)]][2] == tensor._version

    def _external(self, tensor: torch.Tensor) -> int:
        try:
            version = tensor._version
        except RuntimeError:  # made in inference mode: it will not tell whether it was changed
            tensor, version = tensor.clone(), NO_VERSION
        number = self.external_number.get(id(tensor))
        if number is None or self.externals[-1 - number][2] != version:
            self.externals.append((tensor, spec_of_tensor(tensor), version))
            number = self.external_number[id(tensor)] = -len(self.externals)
        return number

    def check_unchanged(self, number: int) -> None:
        """Check that an external tensor still holds what it held when it was passed."""
        tensor, _, version = self.externals[number]
        if version != NO_VERSION and tensor._version != version:
            raise RecordingError(
                f"a tensor of shape {list(tensor.shape)} was changed in place after it was passed to a cell",
                "tensors that stay as they are until their values are read",
                "pass tensor.clone()",
            )

    # Tensor functions between cells -----------------------------------------------------------------------------

    def tensor_function(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A tensor function with recorded tensors among its arguments."""
        return tensor_ops.apply(self, function, arguments, named)

    def operator(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Record a tensor function as a cell of its own."""
        if named:
            return self.call(self.library.operator_site(function, tuple(named)), (*arguments, *named.values()))
        return self.call(self.library.operator_site(function, ()), arguments)

    # Values -----------------------------------------------------------------------------------------------------

    def read(self, tensor: LazyTensor) -> torch.Tensor:
        """The value of a recorded tensor; whatever is recorded is computed first, for all instances in flight."""
        if tensor.value < 0:
            self.check_unchanged(-1 - tensor.value)
            return self.externals[-1 - tensor.value][0].reshape(tensor.shape)
        if tensor.value >= self.done:
            self.wait()
        flat = self.epoch_of(tensor.value).tensor(tensor.value)
        return flat if len(tensor.shape) == 1 else flat.reshape(tensor.shape)

    def epoch_of(self, value: int) -> Epoch:
        """What computed `value`."""
        for epoch in reversed(self.epochs):
            if value >= epoch.first:
                return epoch
        raise RecordingError(f"value {value} of a graph that is not computed")

    def finish_epoch(self, epoch: Epoch) -> None:
        """Everything that was recorded is computed: it is `epoch`."""
        self.epochs.append(epoch)
        self.done = self.recorded
        self.types, self.ends, self.operands = [], [], []
        self.attributes = defaultdict(list)


class CellCall:
    """Stands for a submodule or method of the model while instances run: calling it records."""

    __slots__ = ("recorder", "site")

    def __init__(self, recorder: Recorder, site: Site) -> None:
        self.recorder = recorder
        self.site = site

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Record one call."""
        if named:
            arguments = self.site.positional(arguments, named)
        return self.recorder.call(self.site, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.site.target, name)

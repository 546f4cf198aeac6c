"""Recurrent layers: ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` are recorded as calls of one step cell.

Each layer and direction has one.

Exported as they are, they would be unrolled: one cell for every length, and sequences of different lengths would not
batch. ``torch.lstm`` and its like are recorded wherever they are called with recorded tensors; a module that is one of
these layers makes them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.attention import attends_in_sequences, cell_of_shapes
from edbatch_tvm.recording.followed_parameters import operand_of
from edbatch_tvm.recording.lazy import FUNCTIONS, LazyTensor, lazy_value
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.row_choices import listed_values, tensor_of_values
from edbatch_tvm.recording.scaled_dot_product import scales_in_sequences
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.specs import spec_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_LAYERS = {nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward}


def is_recurrent_layer(module: nn.Module) -> bool:
    """Whether a module is ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``, or a class of its own that computes what they do."""
    return isinstance(module, nn.RNNBase) and type(module).forward in _LAYERS and "forward" not in vars(module)


class RecurrentCall:
    """Stands for a recurrent layer while instances run: its arguments become recorded tensors, and so its steps cells.

    Parameters
    ----------
    recorder : Recorder
    site : Site
        That of the layer, the model's own.
    plain : Module
        The element's copy of it.
    """

    def __init__(self, recorder: Recorder, site: Site, plain: nn.Module) -> None:
        self.recorder = recorder
        self.site = site
        self.plain = plain

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The layer on recorded tensors."""
        if torch._C._is_any_autocast_enabled() or self.recorder.finished:
            return self.plain(*arguments, **named)
        self.site.taken_apart = True
        given = [self._recorded(one) for one in arguments]
        return self.plain(*given, **{name: self._recorded(one) for name, one in named.items()})

    def _recorded(self, argument: Any) -> Any:
        if isinstance(argument, PackedSequence):
            return PackedSequence(self._recorded(argument.data), *argument[1:])
        if type(argument) is tuple:
            return tuple(self._recorded(one) for one in argument)
        if not isinstance(argument, torch.Tensor) or type(argument) is LazyTensor or argument.dim() < 2:
            return argument
        try:
            values = listed_values(self.recorder, argument)
        except CellError:
            return argument
        return tensor_of_values(self.recorder, values, argument.shape[:-1], argument.shape[-1:], argument.dtype)


class Step(nn.Module):
    """One step of a layer in one direction.

    Parameters
    ----------
    weights : sequence of Parameter
        As ``nn.LSTM`` has them: of the input, of the state, the biases, and of the projection.
    biased : bool
    """

    def __init__(self, weights: Sequence[nn.Parameter], biased: bool) -> None:
        super().__init__()
        self.of_input, self.of_state = weights[:2]
        self.input_bias = weights[2] if biased else None
        self.state_bias = weights[3] if biased else None
        self.of_projection = weights[-1] if len(weights) % 2 else None

    def products(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What input and state give to every gate."""
        return F.linear(x, self.of_input, self.input_bias), F.linear(h, self.of_state, self.state_bias)


class _LSTMStep(Step):
    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        from_input, from_state = self.products(x, h)
        into, keep, new, out = (from_input + from_state).chunk(4, 1)
        c = torch.sigmoid(keep) * c + torch.sigmoid(into) * torch.tanh(new)
        h = torch.sigmoid(out) * torch.tanh(c)
        return (h if self.of_projection is None else F.linear(h, self.of_projection)), c


class _GRUStep(Step):
    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        from_input, from_state = self.products(x, h)
        reset_x, keep_x, new_x = from_input.chunk(3, 1)
        reset_h, keep_h, new_h = from_state.chunk(3, 1)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return new + torch.sigmoid(keep_x + keep_h) * (h - new)


class _TanhStep(Step):
    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        from_input, from_state = self.products(x, h)
        return torch.tanh(from_input + from_state)


class _ReluStep(Step):
    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        from_input, from_state = self.products(x, h)
        return torch.relu(from_input + from_state)


_STEPS: dict[Any, type[Step]] = {
    torch.lstm: _LSTMStep,
    torch.gru: _GRUStep,
    torch.rnn_tanh: _TanhStep,
    torch.rnn_relu: _ReluStep,
}


def _beside(forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
    return torch.cat([forward, backward], 1)


class Unrolls(CellError):
    """A cell that contains a recurrent layer over several steps: better recorded one by one."""


class _LayersSeen(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (function in _STEPS and not isinstance(args[1], torch.Tensor)) or (function in _STEPS and args[2:]):
            steps = _steps_of(args)
            if steps > 1:
                raise Unrolls(f"{function.__name__} over {steps} steps in a cell")
        given = function, args, kwargs or {}
        if attends_in_sequences(*given) or scales_in_sequences(*given):
            raise Unrolls("attention over a sequence in a cell")
        return function(*args, **(kwargs or {}))


def _steps_of(arguments: Any) -> int:
    if not isinstance(arguments[2], list | tuple):
        return len(arguments[1])
    return int(arguments[0].shape[1 if arguments[8] else 0])


def refuses_unrolling() -> TorchFunctionMode:
    """A context in which a recurrent layer over several steps raises :class:`Unrolls`."""
    return _LayersSeen()


def _record(function: Any, arguments: Any, named: Any) -> Any:
    """``torch.lstm`` and its like, step by step; NotImplemented where they have to run as they are."""
    if named or len(arguments) != 9:
        return NotImplemented
    packed = not isinstance(arguments[2], list | tuple)
    data, states, weights = (arguments[0], *arguments[2:4]) if packed else arguments[:3]
    biased, layers, dropout, training, bidirectional = arguments[4:9] if packed else arguments[3:8]
    batch_first = not packed and arguments[8]
    states = list(states) if function is torch.lstm else [states]
    recorder = next((one.recorder for one in (data, *states) if type(one) is LazyTensor), None)
    if recorder is None or recorder.finished or torch._C._is_any_autocast_enabled():
        return NotImplemented
    if (training and dropout) or not data.shape[0] or not data.shape[-1]:
        return NotImplemented
    try:
        sequences = _Packed(arguments[1].tolist()) if packed else _Together(tuple(data.shape[:2]), bool(batch_first))
        directions = 2 if bidirectional else 1
        weights = [own_parameter(operand_of(one)) for one in weights]
        each = len(weights) // (layers * directions)
        if any(recorder.library.path_of(one) is None for one in weights):
            raise CellError("weights of a recurrent layer that are no parameters of the model")
        finals: list[list[list[int]]] = [[] for _ in states]
        first = [listed_values(recorder, one) for one in states]  # of layers and directions, one after the other
        count = states[0].shape[1]
        inputs = sequences.split(listed_values(recorder, data))
        width = data.shape[-1]
        widths = [one.shape[-1] for one in states]
        for layer in range(layers):
            made = []
            for direction in range(directions):
                number = layer * directions + direction
                own = weights[number * each : (number + 1) * each]
                call = _cell(recorder, _site(recorder, _STEPS[function], own, biased), (width, *widths))
                begin = [one[number * count : (number + 1) * count] for one in first]
                outputs, ends = _run(recorder, call, inputs, begin, direction == 1)
                made.append(outputs)
                for column, end in zip(finals, ends, strict=True):
                    column.append(end)
            inputs = made[0] if directions == 1 else _both(recorder, made, widths[0])
            width = widths[0] * directions
    except CellError:
        return NotImplemented
    output = tensor_of_values(recorder, sequences.joined(inputs), data.shape[:-1], (width,), data.dtype)
    ends = [
        tensor_of_values(recorder, [*chain(*column)], (len(column), count), (size,), data.dtype)
        for column, size in zip(finals, widths, strict=True)
    ]
    return (output, *ends)


class _Together:
    """Sequences of one length in a tensor ``[T, B, I]`` or ``[B, T, I]``."""

    def __init__(self, shape: tuple[int, ...], batch_first: bool) -> None:
        self.shape = shape
        self.batch_first = batch_first

    def split(self, values: list[int]) -> list[list[int]]:
        """The values of each sequence."""
        first, second = self.shape
        if self.batch_first:
            return [values[begin : begin + second] for begin in range(0, first * second, second)]
        return [values[begin::second] for begin in range(second)]

    def joined(self, sequences: list[list[int]]) -> list[int]:
        """The same, back in the order of the tensor."""
        return [*chain(*(sequences if self.batch_first else zip(*sequences, strict=True)))]


class _Packed:
    """Sequences of a packed tensor: step after step, the longest first."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def split(self, values: list[int]) -> list[list[int]]:
        """The values of each sequence."""
        sequences: list[list[int]] = [[] for _ in range(self.counts[0])]
        rest = iter(values)
        for count in self.counts:
            for sequence in sequences[:count]:
                sequence.append(next(rest))
        return sequences

    def joined(self, sequences: list[list[int]]) -> list[int]:
        """The same, back in the order of the tensor."""
        return [one[step] for step, count in enumerate(self.counts) for one in sequences[:count]]


def _site(recorder: Recorder, kind: type[Step], weights: list[nn.Parameter], biased: bool) -> Site:
    library = recorder.library

    def make() -> Site:
        path, _, name = (library.path_of(weights[0]) or "").rpartition(".")
        own = name.removeprefix("weight_ih_")
        step = kind(weights, biased).eval()
        return Site(f"{path}.{own}" if path else own, step, step)

    return library.step_site((kind, *map(id, weights)), make)


_Call = Callable[[list[int]], int]


def _cell(recorder: Recorder, site: Site, widths: Sequence[int]) -> tuple[Any, ...]:
    """What recording a call of a step takes, for arguments of these widths."""
    specs = tuple([spec_of((1, width), recorder.dtype) for width in widths])
    made = site.found(specs)
    if made is None or made[0] < 0:  # met first, or no cell
        made = cell_of_shapes(recorder, site, tuple([lazy_value(recorder, 0, spec) for spec in specs]))
    return made


def _run(
    recorder: Recorder, made: tuple[Any, ...], sequences: list[list[int]], states: list[list[int]], backward: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Record the steps of sequences.

    Returns
    -------
    outputs : list of list of int
        The output of each step of each sequence, in the order of the inputs.
    ends : list of list of int
        For every state, what it is in the end, for each sequence.
    """
    type_id, specs = made[:2]
    count = len(specs)
    outputs: list[list[int]] = []
    ends: list[list[int]] = [[] for _ in states]
    for number, sequence in enumerate(sequences):
        state = [one[number] for one in states]
        own = []
        for x in reversed(sequence) if backward else sequence:
            value = recorder.append(type_id, (x, *state), count)
            state = [*range(value, value + count)]
            own.append(value)
        outputs.append(own[::-1] if backward else own)
        for column, end in zip(ends, state, strict=True):
            column.append(end)
    return outputs, ends


def _both(recorder: Recorder, made: list[list[list[int]]], width: int) -> list[list[int]]:
    """Outputs of two directions, side by side."""
    site = recorder.library.operator_site(_beside, ())
    type_id = _cell(recorder, site, (width, width))[0]
    return [
        [recorder.append(type_id, pair, 1) for pair in zip(*pairs, strict=True)] for pairs in zip(*made, strict=True)
    ]


FUNCTIONS.update(dict.fromkeys(_STEPS, _record))

"""Layers whose statistics change with every call: they are an error, since a recorded call would not change them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.lazy import FUNCTIONS

_PLACES: dict[Any, tuple[int, int, str, bool]] = {
    F.batch_norm: (1, 5, "training", False),
    torch.batch_norm: (3, 5, "training", False),
    F.instance_norm: (1, 5, "use_input_stats", True),
    torch.instance_norm: (3, 5, "use_input_stats", True),
}
"""Of a function, the places of the running mean and of what says whether it changes; the latter's name and default."""


def check_statistics(function: Any, arguments: Any, named: dict[str, Any]) -> None:
    """Check that a function does not change running statistics.

    Raises
    ------
    RecordingError
    """
    place, switch, name, default = _PLACES[function]
    mean = arguments[place] if len(arguments) > place else named.get("running_mean")
    changes = arguments[switch] if len(arguments) > switch else named.get(name, default)
    if mean is not None and changes:
        raise RecordingError(
            f"{function.__name__} in training mode: its running statistics change with every element",
            "a layer that computes the same for every element",
            "use eval() on the layer, track_running_stats=False, or a layer such as nn.LayerNorm or nn.GroupNorm",
        )


def _checked(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    check_statistics(function, arguments, named)
    return NotImplemented


class StatisticsChecked(TorchFunctionMode):
    """A context in which functions that change running statistics are an error."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _PLACES:
            check_statistics(function, args, kwargs or {})
        return function(*args, **(kwargs or {}))


FUNCTIONS.update(dict.fromkeys(_PLACES, _checked))

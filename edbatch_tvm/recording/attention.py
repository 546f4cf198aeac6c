"""Attention over sequences: ``nn.MultiheadAttention`` is recorded as cells that sequences of any length share.

One cell makes a query of a row, one a key and a value, and one attends: it takes a query and any number of keys and
values. Exported as it is, attention would be a cell of its own for every length, and sequences of different lengths
would not batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.describe import described
from edbatch_tvm.recording.followed_parameters import operand_of
from edbatch_tvm.recording.functions import recorded
from edbatch_tvm.recording.lazy import FUNCTIONS, LazyTensor, lazy_rows, lazy_value
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.row_choices import tensor_of_grid, values_of_rows
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.specs import spec_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_ATTENTION = F.multi_head_attention_forward

_SIGNATURE = inspect.signature(_ATTENTION)

# Cells -----------------------------------------------------------------------------------------------------------


class Projection(nn.Module):
    """Query, key or value of a row.

    Parameters
    ----------
    weight : Parameter
    bias : Parameter or None
        Of query, key and value, one after another.
    width : int
        Elements of the result.
    place : int
        0 for the query, 1 for the key, 2 for the value.
    packed : bool
        Whether `weight` is that of query, key and value, one after another.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, width: int, place: int, packed: bool) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.own_bias = slice(place * width, (place + 1) * width)
        self.own_rows = self.own_bias if packed else slice(width)

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        """The row times the weights."""
        return F.linear(row, self.weight[self.own_rows], None if self.bias is None else self.bias[self.own_bias])


class KeyAndValue(nn.Module):
    """Key and value, side by side, of one row or of a row each."""

    def __init__(self, key: Projection, value: Projection) -> None:
        super().__init__()
        self.key = key
        self.value = value

    def forward(self, *rows: torch.Tensor) -> torch.Tensor:
        """Of the first row the key, of the last one the value."""
        return torch.cat([self.key(rows[0]), self.value(rows[-1])])


class Attend(nn.Module):
    """The attention of one query to any number of rows of a key and a value, side by side.

    Parameters
    ----------
    heads : int
    scale : float
        Of products of a query and a key.
    weight, bias : Parameter, optional
        Of the projection of what the heads give.
    """

    def __init__(self, heads: int, scale: float, weight: Any = None, bias: Any = None) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.weight = weight
        self.bias = bias

    def forward(self, query: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Of the heads, one after another, and projected."""
        width = query.shape[0]
        query = query.view(self.heads, -1)
        of_values = rows.shape[1] - width
        keys = rows.narrow(1, 0, width).view(-1, *query.shape)
        values = rows.narrow(1, width, of_values).view(-1, self.heads, of_values // self.heads)
        shares = torch.softmax((keys * query).sum(-1) * self.scale, 0)
        found = (shares.unsqueeze(-1) * values).sum(0).reshape(-1)
        return found if self.weight is None else F.linear(found, self.weight, self.bias)


# Masks -----------------------------------------------------------------------------------------------------------


def attended(mask: Any, padding: Any, causal: bool, extents: tuple[int, int, int]) -> list[list[list[int]]] | None:
    """For each sequence and query the keys it attends to; None if masks say more than that, or leave a query none.

    Parameters
    ----------
    mask, padding : optional
        As for ``nn.MultiheadAttention``.
    causal : bool
    extents : (int, int, int)
        Number of sequences, of queries and of keys.
    """
    sequences, queries, keys = extents
    if mask is None and padding is None and not causal:
        return [[list(range(keys))] * queries] * sequences
    if causal and mask is None:  # PyTorch asks for a mask, too
        return None
    seen = torch.ones(extents, dtype=torch.bool)
    if causal and padding is None:  # PyTorch does not look at the mask then
        seen &= torch.ones(queries, keys, dtype=torch.bool).tril()
    else:
        of_sequences = [(sequences, keys), *([(keys,)] if sequences == 1 else [])]
        for one, shapes, extent in (
            (mask, [(queries, keys)], (1, queries, keys)),
            (padding, of_sequences, (-1, 1, keys)),
        ):
            if one is not None:
                allowed = _allowed(one, shapes)
                if allowed is None:
                    return None
                seen &= allowed.reshape(extent)
    if not bool(seen.any(-1).all()):
        return None
    return [[row.nonzero().flatten().tolist() for row in one] for one in seen]


def _allowed(mask: Any, shapes: Sequence[tuple[int, ...]]) -> torch.Tensor | None:
    """Where a mask lets values through; None if it does more, or is of none of these shapes."""
    if type(mask) is not torch.Tensor or tuple(mask.shape) not in shapes:
        return None
    if mask.dtype is torch.bool:
        return ~mask
    allowed = mask == 0
    return allowed if bool((allowed | (mask == float("-inf"))).all()) else None


# Recording -------------------------------------------------------------------------------------------------------


def own_weight(recorder: Recorder, weight: Any) -> Any:
    """The parameter of the model that a weight is; None for None.

    Raises
    ------
    CellError
        If it is none.
    """
    parameter = None if weight is None else own_parameter(operand_of(weight))
    if parameter is not None and recorder.library.path_of(parameter) is None:
        raise CellError("weights of attention that are no parameters of the model")
    return parameter


def site_of(recorder: Recorder, name: str, weight: Any, known: Any, make: Callable[[], nn.Module]) -> Site:
    """The site of a cell of attention: `known` says which one it is, and `weight` where in the model."""

    def made() -> Site:
        module = make().eval()
        path = ("" if weight is None else recorder.library.path_of(weight) or "").rpartition(".")[0]
        return Site(f"{path}.{name}" if path else name, module, module)

    return recorder.library.step_site((_ATTENTION, name, known), made)


def projected(
    recorder: Recorder, site: Site, columns: Sequence[list[list[int]]], widths: Sequence[int]
) -> list[list[int]]:
    """Record a call of a cell for each row of each sequence, which takes a value of each column."""
    given = tuple(lazy_value(recorder, 0, spec_of((width,), recorder.dtype)) for width in widths)
    type_id = cell_of_shapes(recorder, site, given)[0]
    sequences = zip(*columns, strict=True)
    return [[recorder.append(type_id, row, 1) for row in zip(*one, strict=True)] for one in sequences]


def attending(
    recorder: Recorder,
    site: Site,
    queries: list[list[int]],
    rows: list[list[int]],
    keys: list[list[list[int]]],
    widths: tuple[int, int],
) -> list[list[int]]:
    """Record a call of a cell for each query of each sequence: with the rows of the sequence that it attends to.

    Parameters
    ----------
    queries, rows : list of list of int
        Values, by sequence.
    keys : list of list of list of int
        As :func:`attended` gives them.
    widths : (int, int)
        Elements of a query and of a row.
    """
    query, row = (spec_of((width,), recorder.dtype) for width in widths)
    cells: dict[bool, int] = {}
    results: list[list[int]] = []
    for own_queries, own_rows, own_keys in zip(queries, rows, keys, strict=True):
        made = []
        for value, places in zip(own_queries, own_keys, strict=True):
            count = len(places)
            type_id = cells.get(count == 1)
            if type_id is None:
                given = lazy_value(recorder, 0, query), lazy_rows(recorder, [0] * count, row)
                type_id = cells[count == 1] = cell_of_shapes(recorder, site, given)[0]
            chosen = own_rows if count == len(own_rows) else [own_rows[place] for place in places]
            made.append(recorder.append(type_id, (value, *chosen), 1))
        results.append(made)
    return results


def cell_of_shapes(recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What recording a call with such arguments takes, of which only the shapes count: type, outputs, result."""
    made = site.found(described(recorder, arguments, True)[0])
    if made is None:
        root, recorder.root = recorder.root, site.owner
        try:
            found = recorder.library.specialise(recorder, site, arguments)
        finally:
            recorder.root = root
        made = found[0].made if isinstance(found, tuple) else (-1, (), None)
    if made[0] < 0:
        raise CellError(f"calls of {site.name!r} that are no cell")
    return made


class _Call:
    """The arguments of one call of ``multi_head_attention_forward``, by name."""

    def __init__(self, arguments: Any, named: Any) -> None:
        bound = _SIGNATURE.bind(*arguments, **named)
        bound.apply_defaults()
        self.given: dict[str, Any] = bound.arguments

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def is_plain(self) -> bool:
        """Whether the result is that of these cells: no random numbers, no extra rows, no weights of the keys."""
        extra = ("bias_k", "bias_v", "static_k", "static_v")
        inputs = [self[name] for name in ("query", "key", "value")]
        return (
            not (self["training"] and self["dropout_p"])
            and not self["need_weights"]
            and not self["add_zero_attn"]
            and all(self[name] is None for name in extra)
            and all(isinstance(one, torch.Tensor) and one.dim() in (2, 3) and one.numel() for one in inputs)
            and inputs[0].shape[-1] % self["num_heads"] == 0
        )

    def weights(self) -> list[Any]:
        """The weights of query, key and value; one for all of them where they are packed."""
        if self["use_separate_proj_weight"]:
            return [self[f"{name}_proj_weight"] for name in "qkv"]
        return [self["in_proj_weight"]] * 3


def attends_in_sequences(function: Any, arguments: Any, named: Any) -> bool:
    """Whether a call is attention of several queries, which is better recorded row by row than as part of a cell."""
    if function is not _ATTENTION:
        return False
    call = _Call(arguments, named)
    return call["query"].shape[0] > 1 and call.is_plain()


_as_one_cell = recorded(_ATTENTION)


def _record(function: Any, arguments: Any, named: Any) -> Any:
    """``multi_head_attention_forward``, row by row; as a cell of its own where it is more than that."""
    call = _Call(arguments, named)
    query, key, value = (call[name] for name in ("query", "key", "value"))
    recorder = next((one.recorder for one in (query, key, value) if type(one) is LazyTensor), None)
    if recorder is None or recorder.finished or torch._C._is_any_autocast_enabled() or not call.is_plain():
        return _as_one_cell(function, arguments, named)
    try:
        return _row_by_row(recorder, call, query, key, value), None
    except CellError:
        return _as_one_cell(function, arguments, named)


def _row_by_row(recorder: Recorder, call: _Call, query: Any, key: Any, value: Any) -> torch.Tensor:
    width, heads = query.shape[-1], call["num_heads"]
    packed = not call["use_separate_proj_weight"]
    weights = [own_weight(recorder, weight) for weight in call.weights()]
    bias = own_weight(recorder, call["in_proj_bias"])
    out = own_weight(recorder, call["out_proj_weight"]), own_weight(recorder, call["out_proj_bias"])
    # Steps of all sequences one after the other, as PyTorch has them here: [L, N, E], or [L, E] of one sequence.
    grids = [values_of_rows(recorder, query), values_of_rows(recorder, key)]
    if value is not key:
        grids.append(values_of_rows(recorder, value))
    shape = grids[0].shape
    columns = [grid.reshape(grid.shape[0], -1).T.tolist() for grid in grids]
    extents = len(columns[0]), len(columns[0][0]), len(columns[1][0])
    keys = attended(call["attn_mask"], call["key_padding_mask"], call["is_causal"], extents)
    if keys is None or any(grid.shape != grids[1].shape for grid in grids[2:]) or len(columns[1]) != len(columns[0]):
        raise CellError("attention that is not about rows alone")

    def projection(place: int) -> Projection:
        return Projection(weights[place], bias, width, place, packed)

    known = *map(id, (*weights, bias, *out)), heads
    site = site_of(recorder, "query", weights[0], known, lambda: projection(0))
    queries = projected(recorder, site, columns[:1], [width])
    site = site_of(recorder, "keys", weights[0], known, lambda: KeyAndValue(projection(1), projection(2)))
    rows = projected(recorder, site, columns[1:], [one.shape[-1] for one in (key, value)[: len(columns) - 1]])
    site = site_of(recorder, "attend", weights[0], known, lambda: Attend(heads, 1 / sqrt(width // heads), *out))
    results = attending(recorder, site, queries, rows, keys, (width, 2 * width))
    return tensor_of_grid(recorder, torch.tensor(results).T.reshape(shape), (width,), query.dtype)


FUNCTIONS[_ATTENTION] = _record

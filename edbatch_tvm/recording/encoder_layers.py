"""``nn.TransformerEncoderLayer`` as two cells: one makes keys and values of rows, the other one does all the rest.

PyTorch has a fast path of its own for such layers, which is one function. Their code, recorded operator by operator,
would take longer than that alone.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.attention import (
    Attend,
    KeyAndValue,
    Projection,
    attended,
    attending,
    own_weight,
    projected,
    site_of,
)
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.row_choices import tensor_of_grid, values_of_rows
from relay_ext.module_structure import HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site

_PARTS: dict[str, type] = {
    "self_attn": nn.MultiheadAttention,
    **dict.fromkeys(("linear1", "linear2"), nn.Linear),
    **dict.fromkeys(("norm1", "norm2"), nn.LayerNorm),
    **dict.fromkeys(("dropout", "dropout1", "dropout2"), nn.Dropout),
}


def is_encoder_layer(module: nn.Module) -> bool:
    """Whether a module is ``nn.TransformerEncoderLayer`` with nothing about it changed."""
    if type(module) is not nn.TransformerEncoderLayer or "forward" in vars(module):
        return False
    parts = module._modules
    return (
        parts.keys() - {"activation"} == _PARTS.keys()
        and all(type(parts[name]) is kind for name, kind in _PARTS.items())
        and all(not getattr(one, name) for one in module.modules() for name in HOOKS)
        and module.activation_relu_or_gelu == {F.relu: 1, F.gelu: 2}.get(module.activation)  # PyTorch asks either
        and type(module.self_attn.out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear
    )


class _Keys(nn.Module):
    """Key and value of a row, side by side."""

    def __init__(self, layer: Any, width: int) -> None:
        super().__init__()
        weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
        self.norm = layer.norm1 if layer.norm_first else None
        self.both = KeyAndValue(Projection(weight, bias, width, 1, True), Projection(weight, bias, width, 2, True))

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return self.both(row if self.norm is None else self.norm(row))


class _Rest(nn.Module):
    """What the layer makes of one row, given the keys and values that it attends to."""

    def __init__(self, layer: Any, width: int) -> None:
        super().__init__()
        attention = layer.self_attn
        self.query = Projection(attention.in_proj_weight, attention.in_proj_bias, width, 0, True)
        out = attention.out_proj
        self.attend = Attend(attention.num_heads, 1 / sqrt(width // attention.num_heads), out.weight, out.bias)
        self.norm1, self.norm2, self.linear1, self.linear2 = layer.norm1, layer.norm2, layer.linear1, layer.linear2
        self.relu = layer.activation is F.relu
        self.norm_first = layer.norm_first

    def further(self, row: torch.Tensor) -> torch.Tensor:
        """The feed-forward part."""
        row = self.linear1(row)
        return self.linear2(torch.relu(row) if self.relu else F.gelu(row))

    def forward(self, row: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if self.norm_first:
            row = row + self.attend(self.query(self.norm1(row)), rows)
            return row + self.further(self.norm2(row))
        row = self.norm1(row + self.attend(self.query(row), rows))
        return self.norm2(row + self.further(row))


class EncoderLayerCall:
    """Stands for ``forward`` of the copy of a layer while instances run.

    Parameters
    ----------
    recorder : Recorder
    layer : nn.TransformerEncoderLayer
        The model's own.
    plain : callable
        ``forward`` of the copy.
    """

    def __init__(self, recorder: Recorder, layer: nn.TransformerEncoderLayer, plain: Callable[..., Any]) -> None:
        self.recorder = recorder
        self.layer: Any = layer
        self.plain = plain

    def __call__(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Any:
        """The layer on the rows of sequences."""
        if self._is_of_rows(src):
            try:
                return self._recorded(src, src_mask, src_key_padding_mask, is_causal)
            except CellError:
                pass
        return self.plain(src, src_mask, src_key_padding_mask, is_causal)

    def _is_of_rows(self, src: Any) -> bool:
        layer, attention = self.layer, self.layer.self_attn
        return (
            isinstance(src, torch.Tensor)
            and src.dim() in (2, 3)
            and src.shape[-1] == attention.embed_dim
            and attention.in_proj_weight is not None
            and attention.bias_k is None
            and not attention.add_zero_attn
            and not self.recorder.finished
            and not torch._C._is_any_autocast_enabled()
            and not (layer.training and any(one.p for one in (layer.dropout, layer.dropout1, layer.dropout2)))
            and not (attention.training and attention.dropout)
        )

    def _recorded(self, src: Any, mask: Any, padding: Any, causal: bool) -> LazyTensor:
        recorder, layer = self.recorder, self.layer
        grid = values_of_rows(recorder, src)
        by_sequence = grid.dim() == 1 or layer.self_attn.batch_first
        shape = grid.shape if by_sequence else grid.T.shape
        columns = (grid if by_sequence else grid.T).reshape(-1, shape[-1]).tolist()
        keys = attended(mask, padding, causal, (len(columns), shape[-1], shape[-1]))
        if keys is None:
            raise CellError("a mask that is not about rows alone")
        width = src.shape[-1]
        of_keys, of_rest = self._sites(width)
        rows = projected(recorder, of_keys, [columns], [width])
        results = attending(recorder, of_rest, columns, rows, keys, (width, 2 * width))
        made = torch.tensor(results).reshape(shape)
        return tensor_of_grid(recorder, made if by_sequence else made.T, (width,), src.dtype)

    def _sites(self, width: int) -> tuple[Site, Site]:
        """Those of the two cells, for what the layer's options are now."""
        recorder, layer = self.recorder, self.layer
        norms = [(one.eps, one.normalized_shape) for one in (layer.norm1, layer.norm2)]
        options = layer.training, layer.norm_first, layer.activation, layer.self_attn.num_heads, *norms
        known = *map(id, (layer, *layer.children())), *options

        def site(name: str, kind: type[nn.Module]) -> Site:
            def make() -> nn.Module:
                for one in layer.parameters():
                    own_weight(recorder, one)
                return kind(layer, width)

            return site_of(recorder, name, layer.self_attn.in_proj_weight, known, make)

        return site("keys", _Keys), site("row", _Rest)

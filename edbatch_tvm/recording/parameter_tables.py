"""Parameters of which embeddings read rows, and their gradients as PyTorch has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from edbatch_tvm.training.gradients import Gradients


class Table(NamedTuple):
    """A parameter of which an embedding reads rows.

    Attributes
    ----------
    sparse : bool
        Whether its gradient is a sparse tensor.
    padding : int
        A row that gets no gradient; -1: there is none.
    """

    sparse: bool
    padding: int

    @classmethod
    def of(cls, model: torch.nn.Module) -> dict[int, Table]:
        """Those of a model whose gradients are not simply that of an array, by the id of the parameter."""
        found = {}
        for one in model.modules():
            if isinstance(one, torch.nn.Embedding | torch.nn.EmbeddingBag):
                padding = -1 if one.padding_idx is None else one.padding_idx
                if one.sparse or padding >= 0:
                    found[id(one.weight)] = cls(one.sparse, padding)
        return found


def gradient_of_weight(gradients: Gradients, name: str, weight: Tensor, tables: Mapping[int, Table]) -> Tensor:
    """The gradient of a parameter as PyTorch has it: sparse for some tables, without rows that stand for padding."""
    table = tables.get(id(weight))
    if table is None:
        found = torch.from_numpy(gradients[name])
        return found if found.shape == weight.shape else found.reshape(weight.shape)
    read = gradients.read_rows(name)
    if table.sparse and read is not None:
        index, rows = gradients.rows(name)
        kept = index != table.padding
        places, parts = torch.from_numpy(index[kept])[None], torch.from_numpy(rows[kept])
        with torch.sparse.check_sparse_tensor_invariants(False):
            return torch.sparse_coo_tensor(places, parts, weight.shape, is_coalesced=True)
    dense = torch.from_numpy(gradients[name]).reshape(weight.shape)
    if read is not None:
        index, rows = read
        for place in np.flatnonzero(index == table.padding).tolist():
            dense = dense.clone()
            dense[table.padding] -= torch.from_numpy(rows[place])
    return dense

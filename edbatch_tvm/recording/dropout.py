"""Dropout in cells: the masks are arguments, which PyTorch draws for every call as it would in the model's own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.cell_module import bound_to
from edbatch_tvm.recording.exporting import EXPORTING
from edbatch_tvm.recording.isolation import switched_to
from edbatch_tvm.recording.masked_code import MaskedCode, dropout_is
from edbatch_tvm.recording.module_attributes import Attribute, call_with_attributes
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.torch_functions import original_functions

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

Mask = tuple[tuple[int, ...], torch.dtype, float]
"""The shape and the dtype of a mask, and the probability that an element is dropped."""


class Dropout:
    """The dropouts of one cell.

    Parameters
    ----------
    site : Site

    Attributes
    ----------
    site : Site
        The same code with masks as one more argument.
    """

    def __init__(self, site: Site) -> None:
        self._original = site
        self._known: dict[Any, tuple[Mask, ...]] = {}
        self.site = Site(site.name, MaskedCode(site.target), site.owner, site.integers_vary)

    def masks(self, recorder: Recorder, arguments: Sequence[Any], root: torch.nn.Module) -> tuple[torch.Tensor, ...]:
        """New masks for a call.

        Parameters
        ----------
        recorder : Recorder
        arguments : sequence
        root : Module
            The element's copy of what the code belongs to, whose attributes may be probabilities.

        Raises
        ------
        CellError
            If the code fails on numbers of the shapes of the arguments.
        """
        leaves, structure = pytree.tree_flatten(tuple(arguments))
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else None for leaf in leaves)
        original = self._original
        read = (
            {one: one.value(root) for one in (*original.constants, *original.reads)}
            if original.owner is not None
            else {}
        )
        plain = {one: value for one, value in read.items() if type(value) in (int, float, bool, str)}
        key = structure, shapes, tuple(plain.items())
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._looked_for(recorder, leaves, structure, plain)
        with torch.no_grad():
            return tuple(F.dropout(torch.ones(shape, dtype=dtype), p) for shape, dtype, p in known)

    def _looked_for(
        self, recorder: Recorder, leaves: list[Any], structure: Any, attributes: dict[Attribute, Any]
    ) -> tuple[Mask, ...]:
        """The masks of calls with arguments of these shapes: the code runs once on other numbers."""
        found: list[Mask] = []

        def noted(tensor: torch.Tensor, p: float) -> torch.Tensor:
            found.append((tuple(tensor.shape), tensor.dtype, p))
            return tensor * 1

        own = recorder.library.state._replace(grad=False)
        with EXPORTING, original_functions(), switched_to(own), torch.random.fork_rng(devices=[]), dropout_is(noted):
            try:
                examples = [_example(leaf) for leaf in leaves]
                given, owner = pytree.tree_unflatten(examples, structure), self._original.owner
                if owner is None:
                    self._original.target(*given)
                else:
                    code = bound_to(self._original.target, owner)
                    call_with_attributes(owner, lambda copy: code(copy)(*given), attributes)
            except Exception as error:
                raise CellError(f"cell {self._original.name!r} fails ({error})") from error
        return tuple(found)


def _example(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.dtype.is_floating_point:
        return torch.rand(tuple(leaf.shape), dtype=leaf.dtype)
    return torch.zeros(tuple(leaf.shape), dtype=leaf.dtype)

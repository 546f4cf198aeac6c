"""One cell under several names, with weights of its own under each.

A cell that a model has several times (one LSTM per direction and layer, one tree node per type) is written once in
TVMScript and once in NumPy; its copies differ in the names of their parameters, and cells share weights by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from edbatch_tvm.checking.reference import Function
from relay_ext.renaming import module_of, renamed

__all__ = ["module_of", "renamed", "renamed_reference", "suffixed"]


def suffixed(suffix: str, *names: str) -> dict[str, str]:
    """New names for :func:`relay_ext.renaming.renamed`: each of `names` with ``_suffix`` behind it.

    Examples
    --------
    >>> suffixed("a", "W", "b")
    {'W': 'W_a', 'b': 'b_a'}
    """
    return {name: f"{name}_{suffix}" for name in names}


def renamed_reference(function: Function, names: Mapping[str, str]) -> Function:
    """The reference `function` with other parameter names, as :func:`renamed` does it for the cell."""
    original = {names.get(name, name): name for name in inspect.signature(function).parameters}

    def with_other_names(**arguments: Any) -> Any:
        return function(**{original[name]: value for name, value in arguments.items()})

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in original]
    with_other_names.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_other_names

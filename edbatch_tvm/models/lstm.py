"""The LSTM equations on Relax expressions, for cells that are LSTMs with weights of their own.

Plain functions that TVMScript calls while it parses a cell: the cell reads as if their bodies stood in it.
"""

from __future__ import annotations

from typing import Any

from tvm.script import relax as R


def gates(x: Any, h: Any, weight: Any, bias: Any) -> Any:
    """Pre-activations of the gates i, f, o, g: ``split([x; h] @ weight + bias)``, fused into one product."""
    return R.split(R.matmul(R.concat((x, h)), weight) + bias, 4)


def memory(ifog: Any, c: Any) -> Any:
    """Next memory: ``sigmoid(f) * c + sigmoid(i) * tanh(g)``."""
    return R.sigmoid(ifog[1]) * c + R.sigmoid(ifog[0]) * R.tanh(ifog[3])


def hidden(ifog: Any, c: Any) -> Any:
    """Next hidden state: ``sigmoid(o) * tanh(c)``, with `c` the next memory."""
    return R.sigmoid(ifog[2]) * R.tanh(c)

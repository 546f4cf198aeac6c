"""What elementary functions are computed of is loaded first.

Their polynomials read it dozens of times. TVM's code generation puts expressions in place of the variables that stand
for them and simplifies the index of every load anew, so that a tanh of a row of an arena took it minutes.
"""

from __future__ import annotations

from typing import Any

from edbatch_tvm.tvm_compat import Call, TensorLoad, structural_equal, structural_map, structural_walk, tirx

FUNCTIONS = frozenset({"sigmoid", "tanh", "exp", "erf", "log", "log1p", "pow"})


def with_loads_first(body: Any) -> Any:
    """The body of a function, whose vectorized loops load into local buffers what functions are computed of.

    Where a store has a condition nothing is moved: it may guard a load.

    Before::

        for v in T.vectorized(16):
            y[v] = T.tanh(arena[row, chunk * 16 + v])

    After::

        x = T.alloc_buffer((16,))
        for v in T.vectorized(16):
            x[v] = arena[row, chunk * 16 + v]
            y[v] = T.tanh(x[v])
    """
    local: set[Any] = set()
    structural_walk(body, (tirx.AllocBuffer, lambda one: local.add(one.buffer)))

    def loaded(loop: Any) -> Any:
        store = loop.body
        if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(store, tirx.BufferStore) or _has_condition(store):
            return loop
        loads = ValuesFirst("loaded", loop)

        def load(one: Any) -> Any:
            return one if one.source in local else loads.element(one)

        def argument(call: Any) -> Any:
            return structural_map(call, (TensorLoad, load)) if called(call) in FUNCTIONS else call

        return loads.before(store, structural_map(store.value, (Call, argument)))

    return structural_map(body, (tirx.For, loaded))


class ValuesFirst:
    """Values that go to local buffers before a store reads them there.

    Parameters
    ----------
    name : str
        Of the buffers.
    loop : For or None
        The vectorized loop that the store is all of, if there is one: each buffer has an element for each turn.
    """

    def __init__(self, name: str, loop: Any = None) -> None:
        self._name = name
        self._loop = loop
        self._extent = 1 if loop is None else loop.extent
        self._index = tirx.const(0, "int32") if loop is None else loop.loop_var
        self._stores: list[Any] = []

    def element(self, value: Any) -> Any:
        """What reads `value` from its buffer: the one that it has already, if it is among them."""
        for known in self._stores:
            if structural_equal(known.value, value):
                return known.buffer[self._index]
        buffer = tirx.decl_buffer((self._extent,), str(value.ty.dtype), self._name, scope="global")
        self._stores.append(tirx.BufferStore(buffer, value, [self._index]))
        return buffer[self._index]

    def before(self, store: Any, value: Any) -> Any:
        """The store, or its loop, with `value` in place of its own, behind the buffers; as it is if there are none."""
        if not self._stores:
            return store if self._loop is None else self._loop
        statements = [*self._stores, tirx.BufferStore(store.buffer, value, store.indices)]
        loop = self._loop
        if loop is not None:
            statements = [tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, tirx.SeqStmt(statements))]
        return tirx.SeqStmt([*(tirx.AllocBuffer(one.buffer) for one in self._stores), *statements])


def called(value: Any) -> str:
    """The name of the function that `value` calls, if it is a call."""
    return str(getattr(value.op, "name", "")).rpartition(".")[2] if isinstance(value, Call) else ""


def _has_condition(store: Any) -> bool:
    found: list[Any] = []
    structural_walk(store.value, (tirx.Select, found.append))
    structural_walk(store.value, (Call, lambda call: found.append(call) if called(call) == "if_then_else" else None))
    return bool(found)

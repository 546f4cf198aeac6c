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
        made: list[tuple[Any, Any]] = []

        def load(one: Any) -> Any:
            if one.source in local:
                return one
            for buffer, known in made:
                if structural_equal(known, one):
                    return buffer[loop.loop_var]
            buffer = tirx.decl_buffer((loop.extent,), str(one.ty.dtype), "loaded", scope="global")
            made.append((buffer, one))
            return buffer[loop.loop_var]

        def argument(call: Any) -> Any:
            return structural_map(call, (TensorLoad, load)) if called(call) in FUNCTIONS else call

        value = structural_map(store.value, (Call, argument))
        if not made:
            return loop
        stores = [tirx.BufferStore(buffer, one, [loop.loop_var]) for buffer, one in made]
        inner = tirx.SeqStmt([*stores, tirx.BufferStore(store.buffer, value, store.indices)])
        whole = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, inner)
        return tirx.SeqStmt([*(tirx.AllocBuffer(buffer) for buffer, _ in made), whole])

    return structural_map(body, (tirx.For, loaded))


def called(value: Any) -> str:
    """The name of the function that `value` calls, if it is a call."""
    return str(getattr(value.op, "name", "")).rpartition(".")[2] if isinstance(value, Call) else ""


def _has_condition(store: Any) -> bool:
    found: list[Any] = []
    structural_walk(store.value, (tirx.Select, found.append))
    structural_walk(store.value, (Call, lambda call: found.append(call) if called(call) == "if_then_else" else None))
    return bool(found)

"""Loads in expressions."""

from __future__ import annotations

from tvm import tirx

from relay_ext.tir_expressions import outer_loads


def test_a_load_that_is_an_index_and_a_condition() -> None:
    """One object in both places: as part of the condition it stands outside of the other load."""
    table = tirx.decl_buffer((8,), "float32", "table")
    places = tirx.decl_buffer((), "int64", "places")
    place = tirx.BufferLoad(places, [])
    read = tirx.BufferLoad(table, [place])
    chosen = tirx.Select(place >= 0, read, tirx.const(0.0, "float32"))
    found = outer_loads(chosen)
    assert len(found) == 2
    assert {load.source.name for load in found} == {"table", "places"}
    (alone,) = outer_loads(read)
    assert alone.same_as(read)

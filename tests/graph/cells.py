"""The signature most graph tests use: a tree model with multi-output, variadic and plain cells."""

from __future__ import annotations

from edbatch_tvm.graph import Attribute, CellSignature, Operand, Signature, ValueSpec

H = ValueSpec((4,))
C = ValueSpec((3,))
SCALAR = ValueSpec(())

LEAF = CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32"), 9),), (H, C))
PAIR = CellSignature("pair", (Operand("h1", H), Operand("c1", C), Operand("h2", H), Operand("c2", C)), (), (H, C))
JOIN = CellSignature("join", (Operand("hs", H, True), Operand("first", H), Operand("cs", C, True)), (), (H, C))
READOUT = CellSignature("readout", (Operand("h", H),), (), (C,))
SCALE = CellSignature(
    "scale", (Operand("h", H), Operand("by", SCALAR)), (Attribute("at", ValueSpec((2,), "int64")),), (H,)
)

TREE = Signature([LEAF, PAIR, JOIN, READOUT, SCALE])

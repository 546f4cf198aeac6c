"""What products are computed in: float32, or on tensor cores in a shorter type, always summed in float32.

Tensor cores multiply 16 rows by 8 columns over a block of k that fills 8 *words* of 32 bits: 16 values of two bytes
or 8 of four. Their fragments are the same for all these types if they are counted in words:

======= ==================================================================================================
A       register r of lane l: row ``l / 4 + 8 * (r % 2)``, word ``l % 4 + 4 * (r / 2)``
B       register r of lane l: word ``l % 4 + 4 * r``, column ``l / 4``
C       element e of lane l: row ``l / 4 + 8 * (e / 2)``, column ``2 * (l % 4) + e % 2``
======= ==================================================================================================

(NVIDIA, PTX ISA, "Matrix fragments for mma.m16n8k16" and "m16n8k8".)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edbatch_tvm.tvm_compat import tirx

WORDS = 8
"""Words of a block of k."""


@dataclass(frozen=True)
class Products:
    """How products are computed.

    Attributes
    ----------
    name : str
    block : int
        Number of k that one instruction sums over; 1 without tensor cores.
    per_word : int
        Values in a word.
    """

    name: str
    block: int = 1
    per_word: int = 1

    @property
    def on_tensor_cores(self) -> bool:
        """Whether tensor cores compute them."""
        return self.block > 1

    def rounded(self, value: Any) -> Any:
        """A float32 value rounded to the type, as float32: to nearest, ties to even (tfloat32: away from zero)."""
        if self.name == "float16":
            return tirx.Cast("float32", tirx.Cast("float16", value))
        bits = tirx.reinterpret("uint32", value)
        if self.name == "tfloat32":
            return tirx.reinterpret("float32", (bits + _word(0x1000)) & _word(0xFFFFE000))
        up = bits + _word(0x7FFF) + ((bits >> _word(16)) & _word(1))
        return tirx.reinterpret("float32", up & _word(0xFFFF0000))

    def packed(self, values: list[Any]) -> Any:
        """The word, as float32, that holds these float32 values, the first in its low half."""
        if self.per_word == 1:
            return self.rounded(values[0]) if self.on_tensor_cores else values[0]
        low, high = (self._half(value) for value in values)
        return tirx.reinterpret("float32", low | (high << _word(16)))

    def _half(self, value: Any) -> Any:
        if self.name == "float16":
            return tirx.Cast("uint32", tirx.reinterpret("uint16", tirx.Cast("float16", value)))
        return tirx.reinterpret("uint32", self.rounded(value)) >> _word(16)

    def unpacked(self, word: Any) -> list[Any]:
        """The values in a word, as float32."""
        if self.per_word == 1:
            return [word]
        bits = tirx.reinterpret("uint32", word)
        if self.name == "float16":
            halves = [bits & _word(0xFFFF), bits >> _word(16)]
            return [tirx.Cast("float32", tirx.reinterpret("float16", tirx.Cast("uint16", half))) for half in halves]
        return [tirx.reinterpret("float32", half) for half in (bits << _word(16), bits & _word(0xFFFF0000))]


def _word(value: int) -> Any:
    return tirx.const(value, "uint32")


FLOAT32 = Products("float32")
TFLOAT32 = Products("tfloat32", block=8, per_word=1)
BFLOAT16 = Products("bfloat16", block=16, per_word=2)
FLOAT16 = Products("float16", block=16, per_word=2)

PRODUCTS = {one.name: one for one in (FLOAT32, TFLOAT32, BFLOAT16, FLOAT16)}
"""By the name that ``dtype`` has."""

PACK = {
    "tfloat32": """
__forceinline__ __device__ unsigned int edbatch_word_tfloat32(const float* x) {
  unsigned int word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x[0]));
  return word;
}
""",
    "bfloat16": """
__forceinline__ __device__ unsigned int edbatch_word_bfloat16(const float* x) {
  unsigned int word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
  return word;
}
""",
    "float16": """
__forceinline__ __device__ unsigned int edbatch_word_float16(const float* x) {
  unsigned int word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
  return word;
}
""",
}
"""CUDA source of the function that rounds the next values to a word."""

_SHAPE = {"tfloat32": "m16n8k8.row.col.f32.tf32.tf32.f32", "bfloat16": "m16n8k16.row.col.f32.bf16.bf16.f32"}
_SHAPE["float16"] = "m16n8k16.row.col.f32.f16.f16.f32"

MULTIPLY = {
    name: f"""
__forceinline__ __device__ void edbatch_multiply_{name}(
    float* c, unsigned int a0, unsigned int a1, unsigned int a2, unsigned int a3, unsigned int b0, unsigned int b1) {{
  asm("mma.sync.aligned.{shape} {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}}
"""
    for name, shape in _SHAPE.items()
}
"""CUDA source of the function that multiplies two blocks and adds the result to four accumulators."""

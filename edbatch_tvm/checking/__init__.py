"""Right or wrong: cells in float64 on plain NumPy, one node at a time, and the comparison with a batched run."""

from edbatch_tvm.checking.comparison import Comparison, Deviation, compare
from edbatch_tvm.checking.reference import Function, run_reference

__all__ = ["Comparison", "Deviation", "Function", "compare", "run_reference"]

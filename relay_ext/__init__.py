"""Graph-level compiler passes over cells, one per file; :mod:`relay_ext.pipeline` names their order.

The name is kept from Relay; Relay left TVM, and its successor Relax is what the passes work on.
"""

from edbatch_tvm import errors
from edbatch_tvm.tvm_compat import register_error
from relay_ext.block_reader import NotReadable

# An exception that a pass raises crosses TVM's C++ code, which keeps its class only if it knows it.
for error in (*vars(errors).values(), NotReadable):
    if isinstance(error, type) and issubclass(error, errors.EdbatchError | NotReadable):
        register_error(error.__name__, error)

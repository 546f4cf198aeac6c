"""PyTorch models as they are: recorded while they run, computed as batches.

The package is not called ``autobatch``: that name is the function :func:`edbatch_tvm.autobatch`.

Read ``api.py`` (what users call), ``module.py``, ``elements.py`` and ``model_state.py`` (the module that it is, its
minibatches, changes of the model), ``named_cells.py``, ``called_functions.py`` and ``choosing.py`` (what the cells
are), ``minibatch.py``, ``copies.py``, ``rebinding.py`` and ``module_attributes.py`` (a minibatch, and copies of the
model), ``lazy.py``, ``strided_storage.py``, ``functions.py`` and ``dispatch.py`` (what a model sees instead of tensors,
and what it does with it), ``arguments.py``, ``rows.py``, ``recorder.py`` and ``call_fast_paths.py`` (calls as numbers
in lists), ``cell_module.py``, ``specialise.py``, ``row_wise.py``, ``site.py`` and ``library.py`` (cells out of calls),
``recurrent.py`` and ``row_choices.py`` (recurrent layers; rows that are chosen), ``flush.py`` and
``compiled_or_pytorch.py`` (computing, compiled and by PyTorch), ``driver.py`` and ``isolation.py`` (instances that
advance together), ``source_locations.py``, ``failures.py`` and ``breaks.py`` (what errors and warnings say).
"""

from relay_ext.from_torch import require_torch

require_torch()

from edbatch_tvm.recording.api import AutoBatched, autobatch  # noqa: E402  (torch must not be imported before the check)

__all__ = ["AutoBatched", "autobatch"]

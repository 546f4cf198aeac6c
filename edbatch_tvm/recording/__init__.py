"""PyTorch models as they are: recorded while they run, computed as batches.

The package is not called ``autobatch``: that name is the function :func:`edbatch_tvm.autobatch`.

Read ``api.py`` (what users call), ``named_cells.py``, ``copies.py`` and ``attributes.py`` (cells and copies of the
model), ``lazy.py``, ``memory.py``, ``functions.py`` and ``dispatch.py`` (what a model sees instead of tensors, and what
it does with it), ``arguments.py``, ``rows.py`` and ``recorder.py`` (calls as numbers in lists), ``specialise.py``,
``row_wise.py`` and ``library.py`` (cells out of calls), ``flush.py`` (computing), ``driver.py`` and ``isolation.py``
(instances that advance together).
"""

from relay_ext.from_torch import require_torch

require_torch()

from edbatch_tvm.recording.api import AutoBatched, autobatch  # noqa: E402  (torch must not be imported before the check)

__all__ = ["AutoBatched", "autobatch"]

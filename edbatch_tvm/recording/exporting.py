"""The lock of ``torch.export``, which is for one thread at a time."""

from __future__ import annotations

from edbatch_tvm.fork_lock import fork_lock

EXPORTING = fork_lock()
"""Held while code is exported: the model's parameters and buffers are others meanwhile, for whoever reads them.

So it is held, too, where a call looks at those of the model or copies its modules. Nothing that waits for another lock
may run there.
"""

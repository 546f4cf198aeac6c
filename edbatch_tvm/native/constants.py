"""Numbers the TIR kernels and their callers agree on."""

from __future__ import annotations

AGENDA, RATIO, LOOKAHEAD, FSM, LEARN, REPLAY = range(6)
"""Rules of the ``schedule`` kernel; ``REPLAY`` takes the batch types it is given and counts states and actions."""

BATCHES, MISSES, FAILED, STATES, EPSILON, ALPHA, RATE, NSTEP, RANDOM = range(9)
"""Slots of the ``io`` buffer: four results, then the settings and the random state of a learning episode."""

IO_SLOTS = 9
"""Length of these; in the ``schedule`` kernel one sum a type follows."""

LANES = 8
"""Typewise rows are padded to a multiple of this many int32, one AVX2 register."""

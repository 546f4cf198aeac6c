"""Numbers the TIR kernels and their callers agree on."""

from __future__ import annotations

AGENDA, RATIO, LOOKAHEAD, GIVEN, FSM, LEARN, REPLAY = range(7)
"""Rules of the scheduling kernels. ``GIVEN`` and ``REPLAY`` take the batch types they are given; ``REPLAY`` counts the
states and actions that it meets."""

BATCHES, MISSES, FAILED, STATES, EPSILON, ALPHA, RATE, NSTEP, RANDOM = range(9)
"""Slots of the ``io`` buffer: four results, then the settings and the random state of a learning episode."""

DROPPED, COST = 3, 4
"""Slots that are the search's: whether children were dropped for lack of room, and the cost of the schedule."""

IO_SLOTS = 9
"""Length of these; in the ``schedule`` kernel one sum per type follows."""

LANES = 8
"""Typewise rows are padded to a multiple of this many int32, one AVX2 register."""

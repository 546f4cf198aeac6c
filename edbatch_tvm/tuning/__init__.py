"""Tuning for a device, in two layers.

``kernels`` tunes one kernel: what is measured, where, the searches, and the database that keeps what they find. It
knows no model, and a compilation reads its records. ``model`` is above the compiler: which kernels of a model to tune,
for which batch sizes, and what is kept only if it is right and faster. ``server`` runs on a machine that measures for
another.
"""

"""Measured runs of workloads, and what the numbers are held against.

========================= ==========================================================================================
measure                   a measured run: compile, run all minibatches, time the stages, check against the reference
policy_learning, splits   a policy for a run, learned on other instances than those it is measured on
ablation, static_cells    what memory plans save: the forms of a cell between DyNet's and ours
matmul_peak, fma_peak     what this machine reaches at most
========================= ==========================================================================================

:mod:`edbatch_tvm.peers` has other systems to compare with.
"""

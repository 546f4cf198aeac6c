"""The kernels as TIR (TVMScript): what the plain Python reference in :mod:`edbatch_tvm.batching` does, in one call.

Compiled for llvm by :mod:`edbatch_tvm.native.build` and cached. Importing a file here parses it, which takes a tenth of
a second or more, so only a build does. Every kernel gives exactly the result of the reference; all arithmetic is on
integers.

======== ==============================================================================================
shared   depths, typewise heights, grouping by batch: ``T.inline`` functions of the kernels
levels   ``heights``, and ``depth_schedule`` by (depth, type)
stepping ``schedule``, one whole schedule by a rule or a table, and ``episode``, the same while learning
beam     ``search``, beam search
planning ``place``, ``fill`` and ``any_worse``: the tables of a memory plan
ordering ``order``: the order of nodes within batches of the plan ``order``
======== ==============================================================================================

Conventions. A ``T.inline`` function is expanded where it is called; its arguments are expressions, so one that is used
twice is bound first. ``x = ...`` makes a mutable scalar, ``x: T.let = ...`` a constant. No loop begins at a buffer load
(TVM 0.27 drops that bound). Both sides of ``and`` and ``or`` are evaluated, so neither may read out of bounds. Buffers
come from NumPy, so each is declared aligned to its element only.
"""

"""The kernels as TIR (TVMScript): what the plain Python reference in :mod:`edbatch_tvm.batching` does, in one call.

Compiled for llvm by :mod:`edbatch_tvm.native.build` and cached. Importing a file here parses it, which takes a tenth of
a second or more, so only a build does. Every kernel gives exactly the result of the reference; all arithmetic is on
integers.

================= ====================================================================================
inlined           ``@inlined``: named parts of kernels
buffers           declarations that kernels share
depths_and_heights parts of these: depths, typewise heights
depth_schedule    ``heights``, and ``depth_schedule`` by (depth, type)
postorder_schedule ``postorder_schedule``, depth first
schedule_loop     ``schedule``, one whole schedule by a rule or a table, and ``episode``, the same while learning
frontiers         parts of these: the ready nodes of each type
policy_rules      parts of these: the type to run, by a rule
state_machine     parts of these: the type to run, by a state machine; learning
beam_search       ``search``, beam search
beam_states       parts of it: the states of the beam
candidate_heap    parts of it: the best children of a step
arena_placement   ``place``: where the blocks of a memory plan begin
step_tables       ``fill``: the tables of a memory plan
layout_comparison ``any_worse``: whether a layout indexes more than another
node_ordering     ``order``: the order of nodes within batches of the plan ``order``
merging           ``merge``: a minibatch graph from those of its instances
backward_graph    ``backward``: the graph of a backward pass; ``term_addresses`` is in a file of its own
backward_steps    ``backward_steps``: a backward pass as a planned schedule, without its graph
backward_pass     parts of it: its arguments and working storage
backward_nodes    parts of it: which nodes have cotangents, and how many nodes batches have
backward_reads    parts of it: the rows that its batches read
gradient_tables   ``gradient_tables``: the tables of the weight gradients of such a pass
addressed_rows    parts of it and of ``term_addresses``: the addresses of operands, and of vectors
================= ====================================================================================

Conventions. An ``@inlined`` function is expanded where it is called; its arguments are expressions, so one that is used
twice is bound first. The buffers and mutable scalars of a kernel are the fields of one object, which its parts take.
``x = ...`` makes a mutable scalar, ``x: T.let = ...`` a constant. No loop begins at a buffer load (TVM 0.27 drops that
bound). Both sides of ``and`` and ``or`` are evaluated, so neither may read out of bounds. Buffers come from NumPy, so
each is declared aligned to its element only.
"""

"""The workloads as others run them, to compare with: PyTorch one node at a time and batched by hand, DyNet.

==================== ============================================================================================
``hand_batches``     the batches an engineer would write by hand: phase by phase, level by level
``torch_cells``      the cells on PyTorch, each for a batch: gates fused, what depends on no operand computed ahead
``torch_runs``       one node at a time, and by hand over buffers of rows; also with cells under ``torch.compile``
``torch_sequences``  the sequence models on ``torch.nn.LSTM``, packed and padded, and as a loop over time
``torch_training``   training steps on PyTorch: by level with autograd, one node at a time, on what ``nn.LSTM`` runs
``dynet_run``        DyNet with its automatic batching, in a process of its own
``dynet_worker``     what runs there; it imports neither this package nor TVM
``contenders``       these and our own ways to run as things that can be timed; ``compare`` times them in turn
``training``         our training step beside theirs
``markdown_tables``  the tables
==================== ============================================================================================

Everything that depends on the structure of a minibatch alone (levels, index tensors, buffers) is made ahead and is not
timed.
"""

PEERS = ("hand", "compiled", "eager", "dynet", "depth", "agenda", "unbatched")
"""Peers by name: PyTorch by hand, the same under ``torch.compile``, PyTorch one node at a time, DyNet, and ours with
the policies ``depth`` and ``agenda`` and one node at a time."""

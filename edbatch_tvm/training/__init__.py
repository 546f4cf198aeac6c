"""Training: the backward pass of a minibatch is a batched graph as well.

Read in this order: ``backward_cells.py`` (what it consists of), ``backward_graph.py`` (the graph and its schedule),
``weight_sums.py`` (what weights get), ``cotangents.py``, ``gradients.py``, ``model.py``.
"""

from edbatch_tvm.training.gradients import Gradients
from edbatch_tvm.training.model import TrainingModel, TrainingResult
from relay_ext.gradients.tir_gradients import register_gradient

__all__ = ["Gradients", "TrainingModel", "TrainingResult", "register_gradient"]

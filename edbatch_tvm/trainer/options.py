"""What to train, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OPTIMIZERS = {"adam": 1e-3, "adagrad": 0.05, "sgd": 0.05}
"""The optimizers, and the learning rate of each where none is given."""

AS_BEFORE = ("batch_size", "optimizer", "lr", "momentum", "seed", "vocabulary", "dropout", "policy")
"""Options that a run started again takes as they were: its results depend on them."""

LATER = {"dropout": 0.0, "policy": "auto"}
"""What older checkpoints do not say, and what it was."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train, and how; the fields are the options of ``edbatch train``.

    Attributes
    ----------
    workload : str
    data, dev : Path
        The files to train on and to measure accuracy on.
    epochs : int
        In all, those of earlier runs of the checkpoint included.
    hidden, batch_size : int
    optimizer : str
    lr : float or None
        The learning rate; None for that of the optimizer.
    momentum : float
        Of ``sgd``.
    vocabulary : int or None
        Words with a row of their own, the most frequent ones; None: all of the data file.
    dropout : float
        The probability that a number of what the outputs are computed from is dropped, in training.
    policy : str
        The batching policy: a registered name. ``fsm`` is learned from the data file.
    seed : int
    checkpoint : Path or None
        The file to go on from, if it exists, and to write.
    """

    workload: str
    data: Path
    dev: Path
    epochs: int = 10
    hidden: int = 128
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float | None = None
    momentum: float = 0.0
    vocabulary: int | None = None
    dropout: float = 0.0
    policy: str = "auto"
    seed: int = 0
    checkpoint: Path | None = None

    @property
    def rate(self) -> float:
        """The learning rate."""
        return OPTIMIZERS[self.optimizer] if self.lr is None else self.lr

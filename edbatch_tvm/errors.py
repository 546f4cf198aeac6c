"""Error classes: what was given, what was expected, and a hint.

Every error the package raises on purpose derives from :class:`EdbatchError`, so that the command line prints it in
one line and a caller can catch it without catching bugs.
"""

from __future__ import annotations


class EdbatchError(Exception):
    """Base class of the errors raised for bad input or an unfit environment.

    Parameters
    ----------
    given : str
        What was found, and where; its lines become one.
    expected : str, optional
        What would have been right.
    hint : str, optional
        What to do next.

    Attributes
    ----------
    place : str
        Where in the user's code, as far as it is known.
    """

    place = ""

    def __init__(self, given: str, expected: str = "", hint: str = "") -> None:
        self.given = given = " ".join(map(str.strip, given.splitlines()))
        self.expected = expected
        self.hint = hint
        parts = [given]
        if expected:
            parts.append(f"expected {expected}")
        message = "; ".join(parts)
        super().__init__(f"{message} (hint: {hint})" if hint else message)

    def locate(self, place: str) -> None:
        """Let the message begin with a place in the user's code; the first call counts."""
        if not self.place:
            self.place = place
            self.args = (f"{place}: {self.args[0]}",)


class GraphError(EdbatchError, ValueError):
    """A graph that is not a well-formed instance graph: a cycle, a missing operand, a wrong arity, ..."""


class CellError(EdbatchError, ValueError):
    """A cell that cannot be compiled, or a call that does not fit the cell's signature."""


class WeightError(EdbatchError, ValueError):
    """Missing, extra or ill-shaped weights."""


class PolicyError(EdbatchError, ValueError):
    """An unknown policy, a broken policy file, or a policy learned for another model."""


class PlanError(EdbatchError, ValueError):
    """A memory plan that was asked for but cannot be made."""


class ConfigError(EdbatchError, ValueError):
    """A configuration of a kernel that has another form, or does not fit the kernel or the machine."""


class DataError(EdbatchError, ValueError):
    """A data file that does not have the documented format; names the file and the line."""


class ModelFileError(EdbatchError, ValueError):
    """A file that is no saved model, a broken one, or one that cannot run on this machine or with these versions."""


class DatabaseError(EdbatchError, ValueError):
    """A tuning database that is missing, broken, or of another device."""


class TargetError(EdbatchError, RuntimeError):
    """A device or target that is not available here."""


class EnvironmentMismatch(EdbatchError, ImportError):
    """Installed packages that do not fit together, or one that is missing."""


class RecordingError(EdbatchError, RuntimeError):
    """Code of a PyTorch model that cannot be recorded, or a model that is not in the state for it."""


class CellWarning(UserWarning):
    """Cells of a PyTorch model that were named and not called, or a model of which nothing was recorded."""


class BreakWarning(UserWarning):
    """Part of a PyTorch model that is not batched: PyTorch runs it, element by element."""


class SlowerWarning(UserWarning):
    """A PyTorch model that takes longer in batches than by itself."""

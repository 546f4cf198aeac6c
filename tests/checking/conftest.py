"""The workload that comparisons are tried on."""

from tests.models.conftest import trees

__all__ = ["trees"]

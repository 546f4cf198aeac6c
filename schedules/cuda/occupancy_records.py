"""Tuned settings for a device: which :class:`~schedules.cuda.kernels.Occupancy` was fastest for a model.

One JSON file for each device, ``<folder>/<device>/cuda.json``: a dict from a key of the model (its cells and what its
products are computed in) to the fields of the machine and what was measured.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tvm import IRModule

from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.errors import DatabaseError
from schedules.cuda.kernels import Occupancy


def model_key(module: IRModule, dtype: str) -> str:
    """A key of fused cells: the same for the same cells at the same sizes."""
    return hashlib.sha256(f"{dtype}\n{module.script()}".encode()).hexdigest()[:24]


def records_path(folder: str | Path, device: str) -> Path:
    """The file of a device."""
    return Path(folder) / device / "cuda.json"


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """All records of a file; none if there is no such file.

    Raises
    ------
    DatabaseError
        If the file is broken.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for record in found.values():
            machine_of(record)
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DatabaseError(f"records in {path} ({error})", "a file that edbatch tune wrote") from None
    return dict(found)


def machine_of(record: dict[str, Any]) -> Occupancy:
    """The machine of a record."""
    values = {field.name: record[field.name] for field in fields(Occupancy)}
    if not all(isinstance(value, int) and value > 0 for value in values.values()):
        raise ValueError(f"machine {values}")
    return Occupancy(**values)


def write_record(path: Path, key: str, machine: Occupancy, measured: dict[str, Any]) -> None:
    """Add or replace one record."""
    records = read_records(path)
    records[key] = {**asdict(machine), **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(records, indent=1) + "\n")

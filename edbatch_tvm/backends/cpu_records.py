"""The tuning records that a compilation uses."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tvm.target import Target

from edbatch_tvm.argument_checks import as_path
from edbatch_tvm.errors import DatabaseError
from edbatch_tvm.tuning.kernels.database import TuningDatabase
from edbatch_tvm.tuning.kernels.records import DatabaseRecords
from schedules.device_names import SHIPPED, device_name
from schedules.tuning_records import Records

NO_RECORDS = "none"
"""The database that has no records."""


def find_records(database: str | Path | None, target: Target, threads: int) -> Records | None:
    """The records of a device in `database`.

    Parameters
    ----------
    database : str or path, optional
        A folder that ``edbatch tune`` made; ``"none"``; or nothing, for the records that are shipped for this device,
        if there are any.
    target : tvm.target.Target
    threads : int

    Raises
    ------
    DatabaseError
        If a folder that is named has no readable records of this device.
    """
    if str(database) == NO_RECORDS:
        return None
    if database is None:
        if not (SHIPPED / device_name(target, threads)).is_dir():
            return None
        database = SHIPPED
    return DatabaseRecords(TuningDatabase(database, target, threads))


def records_digest(database: str | Path | None, target: Target, threads: int) -> str:
    """What tells the records that :func:`find_records` would find from others; empty where there are none."""
    if str(database) == NO_RECORDS:
        return ""
    folder = as_path("the tuning database", SHIPPED if database is None else database, DatabaseError) / device_name(
        target, threads
    )
    digest = hashlib.sha256()
    try:
        files = sorted(path for path in folder.iterdir() if path.name.startswith("database"))
        for path in files:
            digest.update(f"{path.name}\n".encode())
            digest.update(path.read_bytes())
    except OSError:
        return "" if database is None else f"{folder} cannot be read"
    return digest.hexdigest() if files else ""

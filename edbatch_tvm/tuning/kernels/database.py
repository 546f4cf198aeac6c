"""Tuning records of a device: MetaSchedule's JSON database, in a folder named after the device.

A folder holds two databases. ``trials_*.json`` has every trial, so that tuning can be stopped at any time and no trial
is made twice. ``database_*.json`` has what was found faster than the default and verified: at most one record for each
workload, and all that a compilation reads. A workload is a module with one function ``main``; a record's trace is the
schedule MetaSchedule found, or one ``annotate`` instruction with a configuration text, for kernels with a parameter
space of their own.

Records are appended line by line. A line that was cut off, because the process was killed while it wrote, is dropped
when the database is opened; any other change of a file is an error (:mod:`edbatch_tvm.tuning.kernels.file_digests`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.argument_checks import as_path
from edbatch_tvm.errors import DatabaseError
from edbatch_tvm.tuning.kernels.file_digests import Digests
from edbatch_tvm.tuning.kernels.timing import reason_of
from edbatch_tvm.tvm_compat import Trace, s_tir, structural_equal, tirx
from edbatch_tvm.tvm_compat import meta_schedule as ms
from schedules.device_names import device_name

CONFIG = "edbatch.config"
"""Key of the annotation that holds a configuration."""

FAILED_SECONDS = 1e10
"""Time of a trial that could not be built or run, as MetaSchedule writes it."""


class TuningDatabase:
    """The records of one device.

    Parameters
    ----------
    folder : path
        Where the databases of devices are kept.
    target : tvm.target.Target
    threads : int
        Worker threads.
    create : bool
        Make what is missing, to be tuned into; otherwise it is an error.

    Raises
    ------
    DatabaseError
        If there is no such folder, it has no records of this device, or a file in it is broken.
    """

    def __init__(self, folder: str | Path, target: Target, threads: int, create: bool = False) -> None:
        self.device = device_name(target, threads)
        self.target = target
        folder = as_path("the tuning database", folder, DatabaseError)
        self.path = folder / self.device
        self._open(folder, create)
        self._digests = Digests(self.path)
        self._kept = self._load("database", create)
        self._trials: ms.database.JSONDatabase | None = None

    def _open(self, folder: Path, create: bool) -> None:
        if create:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseError(f"database {folder} ({error.strerror})", "a folder to write to") from None
            return
        if not folder.is_dir():
            raise DatabaseError(f"database {folder}", "a folder", "edbatch tune makes one")
        if not self.path.is_dir():
            others = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise DatabaseError(
                f"database {folder} has records of {', '.join(others) or 'no device'}",
                f"records of this one, {self.device}",
                "tune on this device",
            )

    # What was kept -----------------------------------------------------------------------------------------------

    def kept(self, module: IRModule) -> ms.database.TuningRecord | None:
        """The verified record of a workload, if there is one."""
        if not self._kept.has_workload(module):
            return None
        records = self._kept.get_top_k(self._kept.commit_workload(module), 1)
        return records[0] if records else None

    def keep(self, choices: Iterable[tuple[IRModule, Trace | None, float]]) -> None:
        """Replace the verified records of some workloads, all at once.

        Parameters
        ----------
        choices : iterable of (workload, trace, seconds)
            A trace of None: no record, the default is to be used.
        """
        changed = list(choices)
        records = [
            record
            for record in self._kept.get_all_tuning_records()
            if not any(_same(record.workload.mod, module) for module, _, _ in changed)
        ]
        names = _files(self.path, "database")
        scratch = _files(self.path, "scratch")
        for path in scratch:
            path.unlink(missing_ok=True)
        # Workloads stay, at their numbers: between the two replacements the old records go with the new workloads.
        shutil.copyfile(names[0], scratch[0])
        fresh = ms.database.JSONDatabase(str(scratch[0]), str(scratch[1]))
        for record in records:
            _commit(fresh, record.workload.mod, record.trace, list(map(float, record.run_secs)), self.target)
        for module, trace, seconds in changed:
            if trace is not None:
                _commit(fresh, module, trace, [seconds], self.target)
        self._digests.announce(dict(zip(names, scratch, strict=True)))
        for old, new in zip(scratch, names, strict=True):
            os.replace(old, new)
        self._digests.write(names)
        self._kept = self._load("database", False)

    # Trials ------------------------------------------------------------------------------------------------------

    def trials(self, module: IRModule) -> list[tuple[Trace, list[float]]]:
        """Every trial of a workload: its trace and its seconds, in the order they were made."""
        database = self._all_trials()
        if not database.has_workload(module):
            return []
        workload = database.commit_workload(module)
        return [
            (record.trace, [float(second) for second in record.run_secs])
            for record in database.get_all_tuning_records()
            if record.workload.same_as(workload)
        ]

    def add_trial(self, module: IRModule, trace: Trace, seconds: list[float]) -> None:
        """Append a trial; no seconds for one that failed."""
        _commit(self._all_trials(), module, trace, seconds or [FAILED_SECONDS], self.target)
        self._digests.write(_files(self.path, "trials"))

    def trials_count(self) -> int:
        """Number of trials so far, of all workloads."""
        return len(self._all_trials())

    def _all_trials(self) -> ms.database.JSONDatabase:
        if self._trials is None:
            self._trials = self._load("trials", True)
        return self._trials

    def _load(self, name: str, create: bool) -> ms.database.JSONDatabase:
        paths = _files(self.path, name)
        missing = [path for path in paths if not path.is_file()]
        if missing and not (create and len(missing) == len(paths)):
            raise DatabaseError(f"{missing[0]} is missing", "the records of a device", "edbatch tune makes them")
        try:
            if not missing:
                for path in paths:
                    self._digests.check(path, appended=name == "trials")
            database = ms.database.JSONDatabase(str(paths[0]), str(paths[1]), allow_missing=create)
        except DatabaseError:
            raise
        except OSError as error:
            raise DatabaseError(f"{self.path / name}_*.json ({error.strerror})", "files to read and write") from None
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise DatabaseError(
                f"{self.path / name}_*.json cannot be read ({reason_of(error)})",
                "workloads and records that MetaSchedule wrote",
            ) from None
        if missing:
            self._digests.write(paths)
        return database


def config_trace(module: IRModule, text: str) -> Trace:
    """A trace that annotates the workload with a configuration."""
    schedule = s_tir.Schedule(module)
    schedule.annotate(schedule.get_sblock("root", func_name="main"), CONFIG, text)
    return schedule.trace


def config_of(trace: Trace) -> str:
    """The configuration that :func:`config_trace` wrote.

    Raises
    ------
    DatabaseError
        If the trace holds none.
    """
    for instruction in trace.insts:
        if instruction.kind.name == "Annotate" and str(instruction.attrs[0]) == CONFIG:
            return str(instruction.inputs[1])
    raise DatabaseError("a record without a configuration", f"an annotation {CONFIG!r}")


def trace_key(trace: Trace) -> str:
    """A text that two traces share if they are the same."""
    return json.dumps(_plain(trace.as_json()))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tirx.IntImm | tirx.FloatImm):
        return value.value
    return [_plain(one) for one in value]


def _same(one: IRModule, other: IRModule) -> bool:

    return bool(structural_equal(one, other))


def _commit(database: Any, module: IRModule, trace: Trace, seconds: list[float], target: Target) -> None:
    workload = database.commit_workload(module)
    database.commit_tuning_record(ms.database.TuningRecord(trace, workload, seconds, target, []))


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}_workload.json", folder / f"{name}_tuning_record.json"

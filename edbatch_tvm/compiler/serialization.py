"""Saved models: one file that loads in a fresh process without compiling.

A saved model is an uncompressed zip archive of

================ ====================================================================================================
``model.json``   format and version, versions of TVM and this package, target and instruction sets, signature,
                 attributes of the kernels, plan, policy, digests of the other members
``library.so``   the kernels: native code, which loading the model loads. **Load models only from who you would take
                 a program from.** Everything else is data: nothing is unpickled, and nothing in the JSON is executed.
``weights.npz``  what kernels read: ``packed:<kernel>``, ``weight:<name>`` and ``table:<name>``, as they lie in memory;
                 and the constants of cells, ``constant:<name>``, to pack with other weights
``policy.json``  a learned policy, as :func:`edbatch_tvm.batching.save_policy` writes it; not in every model
================ ====================================================================================================
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import numpy as np
from tvm.target import Target

from edbatch_tvm.argument_checks import as_path
from edbatch_tvm.atomic_file import replacing
from edbatch_tvm.backends import find_backend
from edbatch_tvm.batching import FsmPolicy, get_policy, policy_names
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.batching.policy import identity_of
from edbatch_tvm.batching.policy_file import parse_policy, policy_text
from edbatch_tvm.errors import EdbatchError, ModelFileError, PlanError, PolicyError, TargetError, WeightError
from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.memory import resolve_plan
from edbatch_tvm.runtime.artifact import Artifact, HeldWeights
from edbatch_tvm.runtime.cpu_features import architecture, instruction_sets, missing_sets
from edbatch_tvm.runtime.equal_nodes import EqualNodesChoice
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.threads import prepare_threads
from edbatch_tvm.runtime.weights import WeightReader
from edbatch_tvm.tvm_compat import runtime
from edbatch_tvm.tvm_version import REQUIRED
from relay_ext.tabulate_products import DerivedWeight, specs_read

FORMAT, VERSION = "edbatch-model", 3

MANIFEST, LIBRARY, WEIGHTS, POLICY = "model.json", "library.so", "weights.npz", "policy.json"

CALLING_SOURCES = (
    "schedules/abi.py",
    "schedules/cpu/work_sharing.py",
    "relay_ext/join_model_kernels.py",
    "edbatch_tvm/memory/steps_table.py",
    "edbatch_tvm/runtime/kernels.py",
    "edbatch_tvm/runtime/program.py",
)
"""Files that say how kernels are called: a library made under others is not called under these."""

_BROKEN = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    zipfile.BadZipFile,
    RecursionError,
    MemoryError,
    RuntimeError,
    OSError,
)


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to one file; who reads meanwhile sees the old file or the whole new one.

    The weights are written as kernels read them at this moment: packed, tables with padded rows, the others as they
    lie. So the loaded model computes exactly what `model` computes now, whatever happened since to the arrays it was
    given. While writing, the file's weights are in memory once more.

    Parameters
    ----------
    model : Model
        Of granularity ``cell``, for a CPU.
    path : path

    Raises
    ------
    PlanError
        If the model runs operators instead of cells.
    PolicyError
        If its policy is neither a registered one nor learned.
    TargetError
        If it is not for a CPU.
    EnvironmentMismatch
        If there is no C compiler to link the library with.
    ModelFileError
        If the file cannot be written.
    """
    artifact, weights = model.executor.artifact, model.weights
    if artifact is None or weights is None:
        raise TargetError(f"a model for {model.target!r} cannot be saved", "one for 'llvm'")
    if model.granularity != "cell":
        raise PlanError("a model that runs operators cannot be saved", "granularity 'cell'")
    name, learned = _policy_of(model)
    constants = {f"constant:{name}": array for name, array in weights.constants.items()}
    members: dict[str, bytes | memoryview] = {
        LIBRARY: artifact.shared_library(),
        WEIGHTS: _npz(model.held_weights() | constants),
    }
    if learned is not None:
        members[POLICY] = policy_text(learned).encode()
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "versions": _versions(),
        "architecture": architecture(),
        "target": str(artifact.target),
        "instruction_sets": list(instruction_sets(artifact.target)),
        "plan": model.plan_name,
        "policy": name,
        "equal_nodes": model.equal_nodes,
        "cells": [_cell_json(cell) for cell in model.signature],
        "kernels": artifact.attributes,
        "weights": {name: _spec_json(spec) for name, spec in weights.wanted.items()},
        "derived": [one.as_json() for one in weights.derived],
        "read_by_cells": list(weights.read_by_cells),
        "sha256": {member: hashlib.sha256(content).hexdigest() for member, content in members.items()},
    }
    document["sha256"][MANIFEST] = hashlib.sha256(_said(document)).hexdigest()
    text = json.dumps(document, indent=1).encode()
    _write(as_path("model file", path, ModelFileError), {MANIFEST: text, **members})


def load_model(
    path: str | os.PathLike[str],
    params: Mapping[str, Any] | None = None,
    policy: PolicyLike | None = None,
    plan: str | None = None,
) -> Model:
    """Read a model that :meth:`edbatch_tvm.Model.save` wrote. Nothing is compiled; only `params` are packed.

    The file holds native code, which is loaded: load models only from sources whose programs you would run.

    Parameters
    ----------
    path : path
    params : mapping of str to array, optional
        Weights instead of the saved ones. With them :meth:`edbatch_tvm.Model.refresh` reads these again; without, it
        keeps the saved ones.
    policy : str, path, Policy or callable, optional
        Instead of the saved one.
    plan : str, optional
        Memory plan instead of the saved one.

    Returns
    -------
    Model

    Raises
    ------
    ModelFileError
        If the file cannot be read, is not a saved model, is damaged, was saved by another version, or needs a CPU with
        instruction sets that this one does not have.
    WeightError
        If `params` do not fit.
    EnvironmentMismatch
        If the folder for temporary files has no room for the library, or is mounted with ``noexec``.
    """
    begin = perf_counter()
    name = str(path)

    def refuse(given: str, expected: str = "", hint: str = "") -> NoReturn:
        raise ModelFileError(f"model file {name!r}: {given}", expected, hint)

    try:
        members = _read(as_path("model file", path, ModelFileError), refuse)
        document = json.loads(members[MANIFEST])
        _require_fit(document, refuse)
        digests = document["sha256"]
        for member in sorted(members.keys() | digests.keys()):
            content = members.get(member, b"") if member != MANIFEST else _said(document)
            if hashlib.sha256(content).hexdigest() != digests.get(member):
                refuse(f"{member} is damaged", "the file as it was saved")
        signature = Signature(_cell(cell) for cell in document["cells"])
        wanted = {weight: _spec(spec) for weight, spec in document["weights"].items()}
        derived = tuple(DerivedWeight(**one) for one in document["derived"])
        read = tuple(map(str, document["read_by_cells"]))
        held_specs = specs_read(derived, wanted, read)
        _require_stored(members[WEIGHTS], refuse)
        with np.load(io.BytesIO(members[WEIGHTS]), allow_pickle=False) as arrays:
            pairs = [(key, *key.partition(":")[::2]) for key in arrays.files]
            constants = {name: arrays[key] for key, kind, name in pairs if kind == "constant"}
            held = {key: runtime.tensor(arrays[key]) for key, kind, _ in pairs if kind != "constant" and params is None}
        del members[WEIGHTS]
        target = Target(json.loads(document["target"]))
        artifact = Artifact(members[LIBRARY], document["kernels"], target)
        backend = find_backend(target)
        _ = artifact.declarations  # a broken one is refused here
        saved_plan, saved_policy = resolve_plan(document["plan"]), str(document["policy"])
        equal_nodes = EqualNodesChoice(document["equal_nodes"]).option
        learned = parse_policy(members[POLICY].decode(), POLICY, signature.names) if POLICY in members else None
    except EdbatchError as error:
        if isinstance(error, ModelFileError):
            raise
        refuse(error.given, error.expected, error.hint)
    except _BROKEN as error:
        refuse(f"is broken ({type(error).__name__}: {error})", "the file as it was saved")
    reader = WeightReader(wanted, params, None, constants, derived, read)
    weights = reader.read()
    specs = held_specs | {name: ValueSpec(one.shape, str(one.dtype)) for name, one in constants.items()}
    prepare_threads()
    try:
        executor = backend.load(artifact, signature, HeldWeights(held, specs) if weights is None else weights)
    except WeightError as error:
        refuse(f"{WEIGHTS} does not fit its kernels ({error.given})", "the file as it was saved")
    except _BROKEN as error:
        refuse(f"its library does not load ({str(error).strip().splitlines()[0]})", "the file as it was saved")
    chosen: PolicyLike = policy if policy is not None else learned if learned is not None else saved_policy
    return Model(
        signature,
        executor,
        backend.kinds[0],
        chosen,
        saved_plan if plan is None else resolve_plan(plan),
        perf_counter() - begin,
        weights=reader,
        equal_nodes=equal_nodes,
    )


# What has to fit ------------------------------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    """Versions that the library and the way it is called depend on."""
    root = Path(__file__).resolve().parents[2]
    calling = hashlib.sha256(b"".join((root / source).read_bytes() for source in CALLING_SOURCES)).hexdigest()
    return {**{package: metadata.version(package) for package in REQUIRED}, "calling convention": calling[:12]}


def _said(document: dict[str, Any]) -> bytes:
    """All that the manifest says of the kernels: called in another way, they would read and write anywhere."""
    said = {name: value for name, value in document.items() if name != "sha256"}
    return json.dumps(said, sort_keys=True).encode()


def _require_fit(document: Any, refuse: Any) -> None:
    """Refuse a model that was not saved for this machine and these versions."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        refuse("is no saved model", f"format {FORMAT!r}")
    if document.get("version") != VERSION:
        refuse(f"version {document.get('version')!r}", f"version {VERSION}", "compile and save it again")
    for package, own in _versions().items():
        found = document["versions"].get(package)
        if found != own:
            refuse(f"saved with {package} {found}", f"{package} {own}", "compile and save it again")
    if document["architecture"] != architecture():
        refuse(f"is for {document['architecture']}", f"one for this machine, {architecture()}", "compile it here")
    missing = missing_sets(map(str, document["instruction_sets"]))
    if missing:
        refuse(
            f"needs {', '.join(missing)}, which this CPU does not have",
            "a model for its instruction sets",
            'compile it here, or for an older CPU: target={"kind": "llvm", "mcpu": "x86-64-v3"}',
        )


# Members --------------------------------------------------------------------------------------------------------------


def _read(path: Path, refuse: Any) -> dict[str, bytes]:
    """The members of the archive. None is compressed, so none is larger than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if MANIFEST not in entries:
                refuse("is no saved model", "an archive that Model.save wrote")
            names = [one for one in (MANIFEST, LIBRARY, WEIGHTS, POLICY) if one in entries]
            if any(entries[one].compress_type != zipfile.ZIP_STORED for one in names):
                refuse("is compressed", "the file as it was saved")
            return {one: archive.read(one) for one in names}
    except zipfile.BadZipFile as error:
        refuse(f"is no saved model, or a damaged one ({error})", "the file as it was saved")
    except (EOFError, NotImplementedError) as error:
        refuse(f"is damaged ({error})", "the file as it was saved")
    except OSError as error:
        refuse(f"cannot be read: {error.strerror or error}")
    raise AssertionError  # every path above returns or raises


def _require_stored(content: bytes, refuse: Any) -> None:
    """Refuse compressed weights, which may be of any size."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            refuse(f"{WEIGHTS} is compressed", "the file as it was saved")


def _write(path: Path, members: Mapping[str, bytes | memoryview]) -> None:
    try:
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    except OSError as error:
        raise ModelFileError(f"model file {str(path)!r} cannot be written: {error.strerror}") from error


def _npz(arrays: Mapping[str, np.ndarray]) -> memoryview:
    """What :func:`numpy.savez` writes, for arrays of any name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getbuffer()


# Policies -------------------------------------------------------------------------------------------------------------


def _policy_of(model: Model) -> tuple[str, FsmPolicy | None]:
    """Name of the model's policy, and its table if it is a learned one."""
    policy = model.policy
    if isinstance(policy, str) and policy in ("auto", *policy_names()):
        return policy, None
    resolved = model.resolved_policy
    if isinstance(resolved, FsmPolicy):
        return "fsm", resolved
    if resolved is not None and resolved.name in policy_names():
        usual = get_policy(resolved.name)
        if identity_of(resolved) == identity_of(usual):
            return resolved.name, None
    raise PolicyError(
        f"the policy {policy!r} cannot be saved",
        "a registered one as it is, or a learned state machine",
        'model.policy = "auto", then save',
    )


# Signatures -----------------------------------------------------------------------------------------------------------


def _spec_json(spec: ValueSpec) -> dict[str, Any]:
    return {"shape": list(spec.shape), "dtype": spec.dtype}


def _spec(document: dict[str, Any]) -> ValueSpec:
    shape = tuple(document["shape"])
    if not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"a shape of {shape}")
    return ValueSpec(shape, str(np.dtype(document["dtype"])))


def _cell_json(cell: CellSignature) -> dict[str, Any]:
    return {
        "name": cell.name,
        "operands": [{"name": o.name, **_spec_json(o.spec), "variadic": o.variadic} for o in cell.operands],
        "attributes": [{"name": a.name, **_spec_json(a.spec), "bound": a.bound} for a in cell.attributes],
        "outputs": [_spec_json(spec) for spec in cell.outputs],
    }


def _cell(document: dict[str, Any]) -> CellSignature:
    return CellSignature(
        str(document["name"]),
        tuple(Operand(str(o["name"]), _spec(o), bool(o["variadic"])) for o in document["operands"]),
        tuple(Attribute(str(a["name"]), _spec(a), _bound(a["bound"])) for a in document["attributes"]),
        tuple(_spec(spec) for spec in document["outputs"]),
    )


def _bound(bound: Any) -> int | None:
    if bound is not None and type(bound) is not int:
        raise ValueError(f"a bound of {bound!r}")
    return bound

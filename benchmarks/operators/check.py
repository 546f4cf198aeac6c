"""The samples of one operator through compiled cells, on each target."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

import edbatch_tvm as eb
from benchmarks.operators.compare import Expected, difference, expected
from benchmarks.operators.sample_filter import NO_VALUE, has_undefined_cast, outside_by_export, outside_by_running
from benchmarks.operators.samples import Sample, operators, samples, spread, variants
from edbatch_tvm.errors import EdbatchError
from relay_ext import from_torch
from relay_ext.exact_torch_decompositions import own_decompositions
from relay_ext.from_torch import cell_of_program, export_program, import_program
from relay_ext.importer import WeightNames, imported_module
from relay_ext.torch_decompositions import decompositions

TARGETS: dict[str, Any] = {
    "avx2": {"kind": "llvm", "mcpu": "haswell"},
    "llvm": "llvm",
    "cuda-emulated": "cuda-emulated",
}
"""Targets by the name the command takes; ``llvm`` is this machine's CPU, with AVX-512 where it has it."""

BEYOND = 2
"""Samples that are tried of an operator of which no sample counts."""

Say = Callable[[str], None]
Cases = list[tuple[str, tuple[torch.Tensor, ...], list[Expected]]]


def quick_decompositions() -> None:
    """Let ``run_decompositions`` skip what it does in every call for most of PyTorch's 500 composite operators.

    It replaces their kernels by the same ones, which takes five times as long as all the rest. Those that have another
    decomposition are replaced here as well. Without a replacement, an operator that a composite one calls is taken
    apart by PyTorch's function for autograd, where it has one, and not by ours: these functions are removed.
    """
    from torch.export import exported_program

    for operator in own_decompositions():
        operator.py_kernels.pop(torch._C.DispatchKey.Autograd, None)
        operator._dispatch_cache.clear()
    split = exported_program._split_decomp_table_to_cia_and_python_decomp
    composite, plain = split(dict(decompositions().items()))
    composite = {operator: how for operator, how in composite.items() if not isinstance(how, partial)}
    exported_program._split_decomp_table_to_cia_and_python_decomp = lambda _: (dict(composite), dict(plain))
    exported_program.default_decompositions = dict
    from_torch.decompositions = dict


def check(name: str, targets: list[str], count: int, say: Say = lambda _: None) -> dict[str, Any]:
    """Try one operator.

    Returns
    -------
    dict
        ``samples`` (all of the database that are small enough), ``outside`` (why samples do not count: texts and
        numbers), and ``rows``: for each tried sample its number, whether it counts, and for each target a pair of
        ``equal``, ``refused``, ``different`` or ``crash`` and a text.
    """
    say("samples")
    found = samples(operators()[name])
    rows: list[dict[str, Any]] = []
    cells: dict[int, Any] = {}
    cases: dict[int, Cases] = {}
    outside: dict[str, int] = {}
    leaves = {number: one.module.leaves for number, one in enumerate(found)} if name == "topk" else {}
    names = WeightNames()
    for number, sample in spread(found, count):
        say(f"sample {number}: {sample}")
        reason = outside_by_running(lambda sample=sample: sample.module.results(sample.inputs), sample.inputs)
        row: dict[str, Any] = {"sample": number, "shown": str(sample), "outside": reason, "targets": {}}
        if reason.startswith(NO_VALUE) or (reason and sum(bool(other["outside"]) for other in rows) >= BEYOND):
            outside[reason] = outside.get(reason, 0) + 1
            continue
        rows.append(row)
        try:
            program = export_program(f"s{number}", sample.module, sample.inputs)
            row["outside"] = reason or outside_by_export(program)
            cell = f"s{number}"
            cells[number] = cell_of_program(cell, sample.module, import_program(cell, program), names)
            cases[number] = _cases(sample, number)
        except EdbatchError as error:
            row["targets"] = dict.fromkeys(targets, ("refused", reason_of(error)))
        except Exception as error:
            row["targets"] = dict.fromkeys(targets, ("crash", unclear(error)))
        if row["outside"]:
            outside[row["outside"]] = outside.get(row["outside"], 0) + 1
    empty = {number for number, given in cases.items() if any(0 in one.single.shape for one in given[0][2])}
    empty |= {number for number, given in cases.items() if any(0 in tensor.shape for tensor in given[0][1])}
    for target in targets:
        verdicts: dict[int, tuple[str, str]] = {}
        for group in (cases.keys() - empty, empty):  # apart: one cell that is refused costs its module a compilation
            some = {number: cells[number] for number in sorted(group)}
            if some:
                verdicts |= _run(
                    some, cases, target, names, lambda text, target=target: say(f"{target}: {text}"), leaves
                )
        for row in rows:
            if row["sample"] in verdicts:
                row["targets"][target] = verdicts[row["sample"]]
    return {"operator": name, "samples": len(found), "outside": outside, "rows": rows}


def reason_of(error: BaseException) -> str:
    """What an error says, without the names and numbers of one sample."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r"\bs\d+\b", "s", text.split("; expected")[0].split(" (hint")[0])[:200]


def unclear(error: BaseException) -> str:
    """An error that is no EdbatchError, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1][:200]} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"


def _cases(sample: Sample, seed: int) -> Cases:
    cases: Cases = []
    for name, inputs in variants(sample, seed):
        try:
            if has_undefined_cast(lambda inputs=inputs: sample.module.results(inputs)):
                continue
            wanted = expected(sample.module.results, lambda given: sample.module.results(given, wide=True), inputs)
        except (RuntimeError, ValueError, IndexError):
            if name == "plain":
                raise
            continue  # PyTorch itself refuses these values
        cases.append((name, inputs, wanted))
    return cases


def _run(
    cells: Mapping[int, Any],
    cases: Mapping[int, Cases],
    target: str,
    names: WeightNames,
    say: Say,
    leaves: Mapping[int, list[Any]] | None = None,
) -> Any:
    """Verdicts by sample: all cells in one module, or one by one where that is refused."""
    say(f"compile {', '.join(map(str, cells))}")
    try:
        model = eb.compile(
            *imported_module({f"s{n}": cell for n, cell in cells.items()}, names), target=TARGETS[target]
        )
    except Exception as error:
        if len(cells) > 1:
            return {
                n: v for one in cells for n, v in _run({one: cells[one]}, cases, target, names, say, leaves).items()
            }
        if isinstance(error, EdbatchError):
            return dict.fromkeys(cells, ("refused", reason_of(error)))
        return dict.fromkeys(cells, ("crash", unclear(error)))
    return {number: _verdict(model, number, cases[number], say, (leaves or {}).get(number)) for number in cells}


def _verdict(model: eb.Model, number: int, cases: Cases, say: Say, leaves: list[Any] | None = None) -> tuple[str, str]:
    cell = model.signature[f"s{number}"]
    for name, inputs, wanted in cases:
        say(f"sample {number}, {name}")
        given = {parameter: inputs[int(parameter.rsplit("_", 1)[1])].numpy() for parameter in _parameters(cell)}
        try:
            builder = model.builder()
            value = builder.call(cell.name, **given)
            results = model([builder.finish(list(value) if isinstance(value, tuple) else [value])])[0]
        except EdbatchError as error:
            return "refused", reason_of(error)
        except Exception as error:
            return "crash", unclear(error)
        for place, (one, other) in enumerate(zip(results, wanted, strict=True)):
            wrong = difference(np.asarray(one), other)
            if wrong and place == 1 and leaves is not None and _among_equals(inputs[0], leaves, one, wanted[0]):
                wrong = ""
            if wrong:
                return "different", f"{name}, result {place}: {wrong}"
    return "equal", ""


def _among_equals(source: torch.Tensor, leaves: list[Any], places: Any, wanted: Expected) -> bool:
    """True if the places that ``topk`` returns are those of its values: which of equal elements it takes is open."""
    dim = leaves[2] if len(leaves) > 2 else -1
    found = torch.gather(source, dim, torch.as_tensor(np.asarray(places)).long()) if source.ndim else source
    return difference(found.numpy(), wanted) == ""


def _parameters(cell: Any) -> list[str]:
    return [one.name for one in (*cell.operands, *cell.attributes)]

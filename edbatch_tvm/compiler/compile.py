"""``edbatch_tvm.compile``: lower, build, pack the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import tvm
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.compiler.gpu import (
    DEFAULT_ARCH,
    EMULATED,
    cuda_target,
    device_of,
    emulated_kernels,
    find_machine,
    gpu_kernels,
    gpu_sources,
    products_of,
)
from edbatch_tvm.compiler.parts import Parts, attributes_of
from edbatch_tvm.compiler.records import find_records
from edbatch_tvm.compiler.weights import WeightReader
from edbatch_tvm.errors import CellError, PlanError, TargetError, WeightError
from edbatch_tvm.memory import resolve_plan
from edbatch_tvm.runtime.device import DeviceKernels, Launch
from edbatch_tvm.runtime.kernels import KernelSet
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.threads import get_num_threads, prepare_threads
from relay_ext.add_gathers import AddGathers
from relay_ext.bind_sizes import BindSizes, find_sizes
from relay_ext.check_cells import CheckCells
from relay_ext.fuse_cells import cell_constants
from relay_ext.group_ops import GroupOps
from relay_ext.index_bounds import with_index_bounds
from relay_ext.lift_weights import lift_weights
from relay_ext.pipeline import cell_passes, kernel_passes, program_passes, run_passes
from relay_ext.signature import signature_of, weights_of
from relay_ext.split_cells import split_cells
from schedules.cpu.lowering import KERNEL_PIPELINE
from schedules.cpu.machine import host_target, machine_of
from schedules.cuda.kernels import Machine
from schedules.cuda.records import model_key

GRANULARITIES = ("cell", "group", "group-declared", "op")
"""What a node of a minibatch graph can be."""


def compile_model(
    mod: IRModule,
    params: Mapping[str, Any] | None = None,
    target: str | Mapping[str, Any] | Target = "llvm",
    policy: PolicyLike = "auto",
    plan: str = "auto",
    granularity: str = "cell",
    fused: bool = True,
    dump_dir: str | Path | None = None,
    database: str | Path | Machine | None = None,
    sizes: Mapping[str, int] | None = None,
    launch: Launch = "schedule",
    dtype: str = "float32",
) -> Model:
    """Compile cells into a model that runs minibatches of instances.

    Parameters
    ----------
    mod : IRModule
        One ``R.function`` a cell, written for one instance; ``R.func_attr({"num_input": k})`` says that the first k
        parameters are per instance (float tensors: operands; integer tensors: attributes), the rest weights.
    params : mapping of str to array
        The weights by parameter name; cells that use one name share the weight. NumPy, torch or TVM arrays. They are
        read now and at :meth:`Model.refresh`, which takes over any change; until then a change in place is not
        used. Only memory of torch tensors is shared, on the CPU and where kernels read it as it lies (not packed):
        there a change shows at once.
    target : str, mapping or tvm.target.Target
        ``"llvm"`` is this machine's CPU with all its features; ``{"kind": "llvm", "mcpu": "haswell"}`` another.
        ``"cuda"`` is this machine's GPU, ``{"kind": "cuda", "arch": "sm_80"}`` one that has to be here;
        ``"cuda-emulated"`` runs the kernels for GPUs as loops on the CPU, slowly.
    policy : str, path, Policy or callable
        How schedules are made; ``"auto"`` takes the rule that is best on the first minibatch.
    plan : {"auto", "batch", "order", "pq"}
        Memory plan; see :func:`edbatch_tvm.memory.plan_memory`.
    granularity : {"cell", "group", "group-declared", "op"}
        What is batched: whole cells; or each of their operators by itself, as DyNet does it; or operators that were
        grouped within the cell and laid out by :class:`relay_ext.group_ops.GroupOps`, as the paper does it
        (``group-declared``: grouped, but in the order of declaration). Instances are graphs of cells in any case.
    fused : bool
        False, below granularity ``cell``, for the unfused form that other systems run: operands that do not lie
        contiguously are copied by kernels of their own first. It is there to compare with.
    dump_dir : path, optional
        Write the module after every pass to this folder.
    database : str or path, optional
        Folder of tuning records (:func:`edbatch_tvm.tune` makes one), ``"none"`` for untuned kernels; by default the
        records that come with the package for this very kind of CPU and number of threads, if there are any.
    sizes : mapping of str to int, optional
        Numbers for symbolic sizes of the cells, ``{"H": 64}``; those that a weight has are read off its shape.
    launch : {"schedule", "batch"}
        On a GPU: one launch for a whole schedule, or one for every stage of every batch.
    dtype : {"float32", "tfloat32", "bfloat16", "float16"}
        On a GPU: what the products of stages are computed in, the last three on tensor cores. They are summed, and
        values are kept, in float32.

    Returns
    -------
    Model

    Raises
    ------
    CellError
        If a cell cannot be batched, or a symbolic size is unknown or ambiguous.
    WeightError
        If weights are missing, extra, or of another shape or dtype.
    TargetError
        If the target is unknown or not available here.
    PlanError
        If the plan or the granularity is unknown, or `fused` does not go with the granularity.
    DatabaseError
        If `database` has no readable records of this device.

    Examples
    --------
    >>> import edbatch_tvm as eb                                          # doctest: +SKIP
    >>> model = eb.compile(cells, weights)                                # doctest: +SKIP
    >>> b = model.builder()                                               # doctest: +SKIP
    >>> instance = b.finish(b.call("leaf", word=3))                       # doctest: +SKIP
    >>> model([instance, instance])[0]                                    # doctest: +SKIP
    """
    begin = perf_counter()
    if not isinstance(mod, IRModule):
        raise CellError(f"cells are a {type(mod).__name__}", "an IRModule", "decorate the class with @I.ir_module")
    if not isinstance(params, Mapping | None):
        raise WeightError(f"weights in a {type(params).__name__}", "a dict of names and arrays")
    mod = run_passes(mod, [BindSizes(find_sizes(mod, params, sizes))])
    plan = resolve_plan(plan)
    if granularity not in GRANULARITIES:
        raise PlanError(f"unknown granularity {granularity!r}", f"one of {', '.join(GRANULARITIES)}")
    if not fused and granularity == "cell":
        raise PlanError("fused=False at granularity 'cell'", 'granularity="op"')
    prepare_threads()
    resolved, emulated = resolve_target(target), target == EMULATED
    on_gpu = emulated or resolved.kind.name == "cuda"
    if on_gpu and not fused:
        raise PlanError(f"fused=False for target {target!r}", 'target="llvm"')
    if isinstance(database, Machine) and not on_gpu:
        raise TargetError(f"settings of a GPU for target {target!r}", "a folder of records")
    records = None if on_gpu else find_records(database, resolved, get_num_threads())  # type: ignore[arg-type]
    products = products_of(dtype, on_gpu)
    reader = WeightReader(weights_of(mod), params or {})
    arrays = reader.read() or {}
    grouped = granularity.startswith("group")
    if grouped:
        reader.grouped = run_passes(mod, [CheckCells(), GroupOps(granularity == "group")])
        mod, arrays = lift_weights(reader.grouped, arrays)
    split = None
    if granularity != "cell":
        split = split_cells(mod, fold_views=grouped)
        mod = split.module
    signature = signature_of(mod)
    front = cell_passes(fast_math=not on_gpu, share=not on_gpu)
    legal = [one.info.name for one in front].index("LegalizeCells") + 1
    legalized = run_passes(mod, front[:legal], dump_dir)
    for name, tensor in cell_constants(legalized).items():
        reader.constants[name] = tensor.numpy()
    single = run_passes(legalized, front[legal:], dump_dir, first=legal)
    signature = with_index_bounds(signature, single)
    arrays = arrays | reader.constants
    kernels: KernelSet | DeviceKernels
    parts = None
    if on_gpu:
        key = model_key(single, dtype)
        machine = find_machine(database, device_of(target), key)
        if emulated:
            kernels = emulated_kernels(single, signature, arrays, launch, machine, products=products)
        else:
            kernels = gpu_kernels(single, signature, arrays, resolved, launch, products, machine)
        kernels.tuning_key = key
    else:
        back = kernel_passes(signature, machine_of(resolved), records)
        if not fused:
            back.append(AddGathers(signature))
        back += program_passes(signature, resolved)
        module = run_passes(single, back, dump_dir, first=len(front))
        library = tvm.compile(module, target=resolved, tir_pipeline=KERNEL_PIPELINE)
        try:
            kernels = KernelSet(module, library, arrays)
        except RuntimeError as error:  # what TVM says of a library for another architecture
            reason = str(error).strip().splitlines()[-1]
            raise TargetError(
                f"kernels for {target!r} do not run here ({reason})", "a target of this machine"
            ) from None
        parts = Parts(library, attributes_of(module), resolved, reader)
    table = None if split is None else split.table(signature)
    seconds = perf_counter() - begin
    name = EMULATED if emulated else str(resolved.kind)
    return Model(signature, kernels, name, policy, plan, seconds, table, mod, reader.read, parts)


def emit_source(
    mod: IRModule,
    target: str | Mapping[str, Any] | Target = "cuda",
    sizes: Mapping[str, int] | None = None,
    dtype: str = "float32",
) -> dict[str, str]:
    """The CUDA source of the kernels of cells, by kernel; needs neither weights nor a GPU.

    Parameters
    ----------
    mod : IRModule
        See :func:`compile_model`.
    target : str, mapping or tvm.target.Target
        A CUDA target; ``"cuda"`` stands for :data:`~edbatch_tvm.compiler.gpu.DEFAULT_ARCH`.
    sizes : mapping of str to int, optional
        Numbers for symbolic sizes of the cells.
    dtype : {"float32", "tfloat32", "bfloat16", "float16"}
        See :func:`compile_model`.

    Returns
    -------
    dict
        A source for each kernel of a batch, and ``edbatch_schedule`` for the one that runs a whole schedule.

    Raises
    ------
    CellError
        If a cell cannot be batched, or a symbolic size is unknown.
    TargetError
        If the target is no CUDA target.
    """
    resolved = resolve_target({"kind": "cuda", "arch": DEFAULT_ARCH} if target == "cuda" else target)
    if resolved.kind.name != "cuda":
        raise TargetError(f"CUDA source for target {target!r}", '"cuda" or {"kind": "cuda", "arch": ...}')
    mod = run_passes(mod, [BindSizes(find_sizes(mod, None, sizes))])
    single = run_passes(mod, cell_passes(fast_math=False))
    signature = with_index_bounds(signature_of(mod), single)
    return gpu_sources(single, signature, resolved, products_of(dtype, on_gpu=True))


def resolve_target(target: str | Mapping[str, Any] | Target) -> Target:
    """The TVM target that `target` names.

    Raises
    ------
    TargetError
        If it is not a target for this version, or one that is not built yet.
    """
    kind = target.get("kind") if isinstance(target, Mapping) else str(getattr(target, "kind", target))
    if kind in Target.list_kinds() and kind not in ("llvm", "cuda"):
        # Before the target is made: making one for a device that is not there prints a warning.
        raise TargetError(f"target {kind!r}", "llvm or cuda")
    if isinstance(target, str) and target in ("llvm", EMULATED):
        return host_target()
    if kind == "cuda":
        attributes = target.attrs if isinstance(target, Target) else target if isinstance(target, Mapping) else {}
        return cuda_target(attributes.get("arch"))
    if isinstance(target, Target):
        return target
    try:
        return Target(dict(target) if isinstance(target, Mapping) else target)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise TargetError(
            f"unknown target {target!r} ({reason})",
            'a TVM target such as "llvm" or {"kind": "llvm", "mcpu": "haswell"}',
        ) from None

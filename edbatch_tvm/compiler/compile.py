"""``edbatch_tvm.compile``: lower, build, pack the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from tvm import IRModule

from edbatch_tvm.backends import Backend, CompileOptions, TargetLike, find_backend
from edbatch_tvm.backends.options import Database, most_bytes
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.compiler.lower import Lowered, lower_cells
from edbatch_tvm.compiler.progress import Progress
from edbatch_tvm.compiler.training import differentiate, training_model
from edbatch_tvm.errors import CellError, EdbatchError, EnvironmentMismatch, TargetError, WeightError
from edbatch_tvm.memory import resolve_plan
from edbatch_tvm.runtime.compilation_cache import KeptCells, keep
from edbatch_tvm.runtime.device_executor import Launch
from edbatch_tvm.runtime.equal_nodes import EqualNodesOption
from edbatch_tvm.runtime.executor import Executor
from edbatch_tvm.runtime.model import Model
from edbatch_tvm.runtime.threads import prepare_threads
from relay_ext.bind_sizes import BindSizes, find_sizes
from relay_ext.index_bounds import bounds_of
from relay_ext.pipeline import run_passes
from relay_ext.signature import weights_of
from relay_ext.wrap_tvm_errors import cell_error


def compile_model(
    mod: IRModule,
    params: Mapping[str, Any] | None = None,
    target: TargetLike = "llvm",
    policy: PolicyLike = "auto",
    plan: str = "auto",
    granularity: str = "cell",
    fused: bool = True,
    dump_dir: str | Path | None = None,
    database: Database = None,
    sizes: Mapping[str, int] | None = None,
    launch: Launch = "schedule",
    dtype: str = "float32",
    fast_math: bool = True,
    training: bool = False,
    memory: str = "auto",
    storage: str = "float32",
    equal_nodes: EqualNodesOption = False,
    product_tables: bool | int = False,
) -> Model:
    """Compile cells into a model that runs minibatches of instances.

    Parameters
    ----------
    mod : IRModule
        One ``R.function`` per cell, written for one instance; ``R.func_attr({"num_input": k})`` says that the first k
        parameters are per instance (float tensors: operands; integer tensors: attributes, as well as float tensors
        that ``"attributes"`` beside ``"num_input"`` lists), the rest weights.
    params : mapping of str to array
        The weights by parameter name; cells that use one name share the weight. NumPy, torch or TVM arrays. They are
        read now and at :meth:`Model.refresh`, which takes over any change; until then a change in place is not
        used. Only memory of torch tensors is shared, on the CPU and where kernels read it as it lies (not packed):
        there a change takes effect at once.
    target : str, mapping or tvm.target.Target
        ``"llvm"`` is this machine's CPU with all its features; ``{"kind": "llvm", "mcpu": "haswell"}`` another.
        ``"cuda"`` is this machine's GPU, ``{"kind": "cuda", "arch": "sm_80"}`` a GPU that must be present;
        ``"cuda-emulated"`` runs the kernels for GPUs as loops on the CPU, slowly; ``"numpy"``
        interprets the cells in float64, very slowly, for comparison.
    policy : str, path, Policy or callable
        The batching policy; ``"auto"`` takes the rule that is best on the first minibatch, and selects again on a
        much larger one.
    plan : {"auto", "batch", "order", "pq"}
        Memory plan; see :func:`edbatch_tvm.memory.plan_memory`.
    granularity : {"cell", "group", "group-declared", "op"}
        What is batched: whole cells; or each of their operators on its own, as in DyNet; or operators that were
        grouped within the cell and laid out by :class:`relay_ext.group_ops.GroupOps`, as in the paper
        (``group-declared``: grouped, but in the order of declaration). Instances are graphs of cells in any case.
    fused : bool
        False, below granularity ``cell``, for the unfused form that other systems run: operands that do not lie
        contiguously are first copied by separate kernels. It exists for comparison.
    dump_dir : path, optional
        Write the module after every pass to this folder.
    database : str or path, optional
        Folder of tuning records (:func:`edbatch_tvm.tune` makes one), ``"none"`` for untuned kernels; by default the
        records in the package for this kind of CPU and number of threads, if there are any.
    sizes : mapping of str to int, optional
        Numbers for symbolic sizes of the cells, ``{"H": 64}``; sizes of weights are taken from their shapes.
    launch : {"schedule", "batch"}
        On a GPU: one launch for a whole schedule, or one for every stage of every batch.
    dtype : {"float32", "float64", "tfloat32", "bfloat16", "float16"}
        Cells are computed in the dtypes that they are written in. ``"float64"``, on a CPU, takes cells written in
        float32 as cells of float64: values and weights are float64; float32 weights, and constants in the cells, are
        widened. The last three, on a GPU: what the products of stages are computed in, on tensor cores; they are
        summed, and values are kept, in float32.
    fast_math : bool
        False on a CPU: exp, sigmoid and tanh of the C library, one number at a time, instead of forms that vectorise.
        ``docs/numerics.md`` has the errors of both.
    training : bool
        Whether results have a backward pass, :meth:`edbatch_tvm.training.TrainingResult.backward`: at granularity
        ``cell`` or ``op``.
    memory : {"auto", "save", "recompute"}
        For training: whether the forward pass saves values that the backward pass reads and could only compute again
        by a product or reduction (``"save"``, ``"auto"``), or the backward pass computes them again.
    storage : {"float32", "bfloat16", "float16"}
        On a CPU: what values and weights of float32 are kept in. Cells compute in float32; each value and weight is
        rounded once. Results are given as float32.
    equal_nodes : {False, "auto", True}
        Whether nodes of one cell with equal operands and attributes, such as repeated words and phrases of a minibatch,
        are computed once. ``"auto"`` does what is faster, by the first minibatches; results have the same bits either
        way, and ``result.schedule`` is that of ``result.report.graph``. For training, where the gradients of equal
        nodes are added up first and may be rounded differently, ``"auto"`` is False.
    product_tables : bool or int
        Whether a product of a table's row with a weight, of a word's embedding for instance, is read from a table of
        such products, which is computed when the weights are read: True for 256 MiB of such tables at most, or the
        most bytes. It saves the products' operations, and results are rounded differently. For training, on a CPU,
        rows are computed when a minibatch reads them for the first time since weights were taken over, of embeddings
        of 192 elements or more; not with ``memory="recompute"``.

    Returns
    -------
    Model
        A :class:`~edbatch_tvm.training.TrainingModel` for training.

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
    plan = resolve_plan(plan)
    tables = most_bytes(product_tables)
    options = CompileOptions(granularity, fused, launch, dtype, database, fast_math, storage, tables)
    prepare_threads()
    backend = find_backend(target)
    backend.check(options)
    if training and storage != "float32":
        raise TargetError(f"storage {storage!r} of a model for training", "storage='float32'")
    differentiated = None
    if training:
        differentiated = differentiate(mod, params, sizes, options, memory)
        mod, sizes = differentiated.adjoints.forward, None
        options = replace(options, granularity="cell", product_tables=0)
        if options.dtype == "float64":  # the cells are of float64 now
            options = replace(options, dtype="float32")
        if differentiated.split is not None or differentiated.derived:
            params = differentiated.weights_of_cells()
    try:
        lowered, executor = _compiled(mod, params or {}, backend, options, sizes, dump_dir)
    except (EdbatchError, OSError, MemoryError):
        raise
    except Exception as error:

        def attempt(one: IRModule) -> object:
            needed = {name: array for name, array in (params or {}).items() if name in weights_of(one)}
            return _compiled(one, needed, backend, options)

        bound = run_passes(mod, [BindSizes(find_sizes(mod, params, sizes))])
        refusal = cell_error(error, bound, attempt)
        raise refusal from error
    model = Model(
        lowered.signature,
        executor,
        backend.kinds[0],
        policy,
        plan,
        perf_counter() - begin,
        lowered.table,
        lowered.nodes,
        lowered.weights,
        equal_nodes,
    )
    return model if differentiated is None else training_model(model, differentiated, target, options)


def _compiled(
    mod: IRModule,
    params: Mapping[str, Any],
    backend: Backend,
    options: CompileOptions,
    sizes: Mapping[str, int] | None = None,
    dump_dir: str | Path | None = None,
) -> tuple[Lowered, Executor]:
    """What the cells become, and what runs it."""
    with Progress() as progress:
        lower = partial(lower_cells, mod, params, backend, options, sizes, dump_dir, progress)
        lowered = lower(reuse=True)
        executor = _loaded(lowered, backend)
        if executor is None:
            if lowered.compiled is not None:
                lowered = replace(lower(), key=lowered.key)
            progress("code")
            executor = backend.build(lowered.module, lowered.signature, lowered.arrays, options)
        if not lowered.found:
            _keep(lowered, executor)
    return lowered, executor


def _loaded(lowered: Lowered, backend: Backend) -> Executor | None:
    """The executor of compiled cells; None where there are none, or they do not load."""
    if lowered.compiled is None:
        return None
    try:
        return backend.load_kept(lowered.compiled, lowered.signature, lowered.arrays)
    except (OSError, RuntimeError, AttributeError, KeyError, EnvironmentMismatch):
        return None


def _keep(lowered: Lowered, executor: Executor) -> None:
    """Keep the code of `executor` for later processes, if it could be linked."""
    artifact = executor.artifact
    if lowered.key is None or artifact is None or not isinstance(artifact.library, bytes):
        return
    attributes = {name: dict(values) for name, values in artifact.attributes.items()}
    bounds = bounds_of(lowered.signature)
    keep(lowered.key, KeptCells(artifact.library, attributes, bounds, lowered.weights.constants))

"""Random typed DAGs: no structure that a policy could rely on."""

from __future__ import annotations

from edbatch_tvm.models.random_dag.arrays import dag_arrays, flat_dags
from edbatch_tvm.models.random_dag.build import dag_graph
from edbatch_tvm.models.random_dag.cells import cells
from edbatch_tvm.models.random_dag.generator import random_dags
from edbatch_tvm.models.random_dag.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

WORKLOAD = Workload(
    "random-dag", cells, Source(None, random_dags, flat=flat_dags), dag_graph, REFERENCE, arrays=dag_arrays
)

__all__ = ["WORKLOAD"]

"""Readers and loaders on broken files: one error, soon, in little memory."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edbatch_tvm.errors import EdbatchError
from tests.fuzz.loaders import LOADERS
from tests.fuzz.mutations import broken_bytes, broken_json

MEMORY = 256 << 20
"""Bytes that reading a small file may take at most."""

SECONDS = 5.0
"""Of this thread: other processes do not count."""

QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process have no more than :data:`MEMORY` more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def load_or_refuse(name: str, content: bytes, folder: Path) -> None:
    """Load `content`; anything but a result or one clear error fails."""
    begin, message = thread_time(), "none"
    try:
        with little_memory():
            LOADERS[name].load(content, folder)
    except EdbatchError as error:
        message = str(error)
    assert thread_time() - begin < SECONDS
    assert 0 < len(message) < 2000, "an error that shows nothing, or too much of the file"


@pytest.mark.parametrize("name", LOADERS)
def test_samples_are_accepted(name: str, tmp_path: Path) -> None:
    LOADERS[name].load(LOADERS[name].sample, tmp_path)


@QUICK
@given(data=st.data())
@pytest.mark.parametrize("name", LOADERS)
def test_broken_content(name: str, tmp_path: Path, data: st.DataObject) -> None:
    load_or_refuse(name, data.draw(broken_bytes(LOADERS[name].sample)), tmp_path)


@QUICK
@given(data=st.data())
@pytest.mark.parametrize("name", ["policy", "costs", "stage-config"])
def test_json_of_other_types(name: str, tmp_path: Path, data: st.DataObject) -> None:
    document = data.draw(broken_json(json.loads(LOADERS[name].sample)))
    load_or_refuse(name, json.dumps(document).encode(), tmp_path)

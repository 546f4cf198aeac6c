"""Coverage-guided search for content that a loader does not survive; needs atheris (Linux, Python up to 3.13).

    python -m benchmarks.fuzz LOADER [libFuzzer options, such as -max_total_time=120 -rss_limit_mb=2048]

LOADER is a name of :data:`tests.fuzz.loaders.LOADERS`. It stops at the first input that raises anything but an
EdbatchError, takes longer than ``-timeout`` or more memory than ``-rss_limit_mb``, and writes it to ``crash-...``.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edbatch_tvm", "schedules.cpu.stage_config"]):
    from edbatch_tvm.errors import EdbatchError
    from tests.fuzz.loaders import LOADERS


def main() -> None:
    """Fuzz one loader, beginning with its sample."""
    if len(sys.argv) < 2 or sys.argv[1] not in LOADERS:
        raise SystemExit(f"usage: python -m benchmarks.fuzz {{{','.join(LOADERS)}}} [libFuzzer options]")
    loader = LOADERS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        corpus, scratch = Path(folder) / "corpus", Path(folder) / "scratch"
        corpus.mkdir()
        scratch.mkdir()
        (corpus / "sample").write_bytes(loader.sample)

        def one(content: bytes) -> None:
            with suppress(EdbatchError):
                loader.load(content, scratch)

        atheris.Setup([sys.argv[0], "-timeout=10", "-rss_limit_mb=2048", *sys.argv[2:], str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

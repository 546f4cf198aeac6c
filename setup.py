"""Compiles the modules in C for wheels of one platform, where EDBATCH_BUILD_EXTENSIONS is set, as cibuildwheel does.

Without it the wheel is for every platform, and the modules are compiled when they are first needed.
"""

import hashlib
import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = {
    "edbatch_tvm.graph.edbatch_builder_core": "edbatch_tvm/graph/builder_core",
    "edbatch_tvm.models.edbatch_reader_core": "edbatch_tvm/models/reader_core",
    "edbatch_tvm.recording.edbatch_recording_core": "edbatch_tvm/recording/native_core",
}


def digest_of_sources(sources: Path) -> str:
    """As in edbatch_tvm/c_extension.py, which cannot be imported here."""
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class BuildWithDigests(build_ext):
    """Writes beside each library the digest of its sources: a library of other sources is not loaded."""

    def run(self) -> None:
        """Build all modules."""
        super().run()
        for extension in self.extensions:
            library, sources = Path(self.get_ext_fullpath(extension.name)), Path(extension.sources[0]).parent
            library.with_name(f"{sources.name}.digest").write_text(digest_of_sources(sources))


if os.environ.get("EDBATCH_BUILD_EXTENSIONS"):
    setup(
        ext_modules=[
            Extension(name, [f"{folder}/module.c"], extra_compile_args=["-std=c11", "-O3"])
            for name, folder in MODULES.items()
        ],
        cmdclass={"build_ext": BuildWithDigests},
    )
else:
    setup()

"""Public repositories of dynamic models: where they are, at which commit, and what of them runs on today's PyTorch."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

PRINT = (r"^(\s*)print (?!\()(.*)$", r"\1print(\2)")
"""A print statement of Python 2."""
RANGE = (r"\bxrange\(", "range(")
SPLIT = (r"\bsplit_size=", "split_size_or_sections=")
SET = (r"\.data\.set_\(", ".data.copy_(")
CUDA = (r"\.cuda\(\)", "")
VOLATILE = (r",\s*volatile\s*=\s*[\w. ]+(?=\))", "")


@dataclass(frozen=True)
class Repository:
    """One repository and the repairs that today's Python and PyTorch ask for.

    Attributes
    ----------
    address : str
        Owner and name on GitHub.
    commit : str
    repairs : tuple of (path, pattern, replacement)
        Regular expressions over the lines of one file. They touch only what Python 2 or an old PyTorch spelled
        differently.
    """

    address: str
    commit: str
    repairs: tuple[tuple[str, str, str], ...] = ()

    @property
    def url(self) -> str:
        """Where to clone it from."""
        return f"https://github.com/{self.address}"


def checked_out(repository: Repository, folder: Path) -> Path:
    """The repaired working tree of a repository in `folder`; cloned if it is not there.

    Raises
    ------
    subprocess.CalledProcessError
        If git fails.
    """
    place = folder / repository.address.replace("/", "+")
    if not place.exists():
        clone = ["git", "clone", "-q", "--no-checkout", "--filter=blob:none", repository.url, str(place)]
        subprocess.run(clone, check=True)
    listed = git(place, "ls-tree", "-r", "--name-only", repository.commit).splitlines()
    files = [name for name in listed if name.endswith((".py", ".json", ".pickle")) and "Theano" not in name]
    git(place, "checkout", "-q", "-f", repository.commit, "--", *files)
    for path, pattern, replacement in repository.repairs:
        file = place / path
        text = file.read_bytes().decode()  # lines keep their ends
        file.write_bytes(re.sub(pattern, replacement, text, flags=re.MULTILINE).encode())
    return place


def edited_lines(place: Path) -> int:
    """How many lines of a working tree its repairs changed."""
    rows = [line.split() for line in git(place, "diff", "--numstat", "--diff-filter=M").splitlines()]
    return sum(int(added) for added, _removed, _name in rows)


def git(place: Path, *arguments: str) -> str:
    """What git prints, run in `place`."""
    command = ["git", "-C", str(place), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

"""What verbs write."""

from __future__ import annotations

import json
import math
from pathlib import Path

from edbatch_tvm.cli.output import write_json


def test_what_is_no_number_is_null_at_any_depth(tmp_path: Path) -> None:
    figures = {"lr": math.inf, "epochs": [{"loss": math.nan, "of": (1.0, -math.inf)}, 2]}
    write_json(tmp_path / "figures.json", figures)
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert written == {"lr": None, "epochs": [{"loss": None, "of": [1.0, None]}, 2]}

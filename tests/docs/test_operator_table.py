"""The table of operators on its page is what the passes make of each function."""

from __future__ import annotations

import pytest

from benchmarks import row_functions


def test_the_page_has_every_function() -> None:
    page = row_functions.PAGE.read_text(encoding="utf-8")
    assert row_functions.page_with("") != page
    table = page.partition(row_functions.BEGIN)[2].lstrip("\n").partition("\n\n")[0]
    names = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert [name for name in names if name in row_functions.FUNCTIONS] == list(row_functions.FUNCTIONS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_table_is_what_is_compiled() -> None:
    assert row_functions.page_with(row_functions.table()) == row_functions.PAGE.read_text(encoding="utf-8")

"""What a notebook costs is measured, and only a run of which all is green goes into the page."""

import nbformat
import pytest

from benchmarks import report
from scripts import costs


@pytest.fixture
def two_notebooks(tmp_path, monkeypatch):
    """A notebook that spends a second and 200 MB, and one that fails."""
    sources = {
        "spends": "import time\nheld = bytearray(200 * 2**20)\nend = time.process_time() + 1\n"
        "while time.process_time() < end:\n    pass",
        "fails": "1 / 0",
    }
    paths = [tmp_path / f"{name}.ipynb" for name in sources]
    for path, source in zip(paths, sources.values(), strict=True):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    page = tmp_path / "costs.md"
    page.write_text("before\n<!-- costs: begin -->\n<!-- costs: end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(costs, "notebooks", lambda: paths)
    monkeypatch.setattr(costs, "PAGE", page)
    return page


def test_the_cost_is_what_the_kernel_used(two_notebooks, capsys):
    found = costs.cost(costs.notebooks()[0])
    assert 1 <= found.cpu <= found.seconds
    assert 200 * 2**20 < found.memory < 2**31
    idle = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("pass")])
    nbformat.write(idle, costs.notebooks()[1])
    assert costs.cost(costs.notebooks()[1]).memory < 150 * 2**20, "its own, and not that of who started it"
    assert costs.main(["--write"]) == 0
    written = two_notebooks.read_text(encoding="utf-8")
    assert "| [spends](../notebooks/spends.ipynb) |" in written and written.endswith("after\n")


def test_one_that_fails_is_named_and_the_page_stays(two_notebooks, capsys):
    before = two_notebooks.read_text(encoding="utf-8")
    assert costs.main(["--write"]) == 1
    said = capsys.readouterr()
    assert "fails did not finish: Cell 0 failed with ZeroDivisionError" in said.err
    assert "[spends]" in said.out
    assert two_notebooks.read_text(encoding="utf-8") == before


def test_a_name_that_is_not_there_gets_a_sentence(capsys):
    with pytest.raises(SystemExit):
        costs.main(["99_nothing"])
    assert "there is no notebook 99_nothing; the names are" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--at-once", "A_refresher"])
def test_a_part_of_the_table_is_not_written(flag, capsys):
    with pytest.raises(SystemExit):
        costs.main(["--write", flag])
    assert "--write takes all notebooks" in capsys.readouterr().err


def test_the_page_has_its_place():
    assert "RESULT" in report.placed(costs.PAGE.read_text(encoding="utf-8"), "costs", "RESULT")

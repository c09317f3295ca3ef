"""Notebooks for a class: no hint and no solution is left, and nothing else is gone."""

import nbformat
import pytest

from scripts import handout
from scripts.book_pages import notebooks


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_what_is_handed_out_has_everything_but_the_solutions(path):
    whole, left = nbformat.read(path, 4), nbformat.reads(handout.without_solutions(path), 4)
    gone = [cell for cell in whole.cells if cell not in left.cells]
    assert len(gone) >= 3 and all(cell.source.startswith("<details><summary>") for cell in gone)
    assert [cell for cell in whole.cells if cell not in gone] == left.cells
    assert not any("<summary>" in cell.source and "Solution" in cell.source for cell in left.cells)


def test_a_students_work_is_not_written_over(tmp_path, capsys):
    assert handout.main([str(tmp_path / "class"), "04_elbo"]) == 0
    copy = tmp_path / "class" / "04_elbo.ipynb"
    assert "solution-1" not in copy.read_text(encoding="utf-8")
    copy.write_text("my work", encoding="utf-8")
    assert handout.main([str(tmp_path / "class"), "04_elbo", "05_epsilon_objective"]) == 1
    assert "has 04_elbo.ipynb already" in capsys.readouterr().out
    assert copy.read_text(encoding="utf-8") == "my work" and len(list((tmp_path / "class").iterdir())) == 1

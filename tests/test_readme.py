"""What README.md says is true: its Python runs, its commands and files exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import book_pages, syllabus

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_readme_has_a_python_block():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{i}" for i in range(1, len(BLOCKS) + 1)])
def test_readme_python_block_runs_as_a_program_in_an_empty_folder(block, tmp_path):
    program = tmp_path / "block.py"
    program.write_text(block, encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "agg"}
    run = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr


def test_each_make_verb_in_the_readme_is_in_the_makefile():
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(
        re.findall(r"\bmake ([a-z-]+)\b", " ".join(re.findall(r"^```sh\n.*?^```|`[^`\n]+`", README, re.M | re.S)))
    )
    assert "quickstart" in named and "test" in named
    assert named <= verbs, f"the Makefile has no {sorted(named - verbs)}"


def test_each_local_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    absent = [link for link in links if not (ROOT / link).exists()]
    assert links and not absent


def test_each_module_that_the_readme_runs_exists():
    named = set(re.findall(r"-m (scripts\.\w+)", README))
    assert named and all((ROOT / (name.replace(".", "/") + ".py")).is_file() for name in named)


def test_the_syllabus_beside_the_notebooks_says_what_they_say():
    assert syllabus.TARGET.read_text(encoding="utf-8") == syllabus.syllabus(), "Run `python -m scripts.syllabus`."


def test_the_map_has_each_notebooks_minutes():
    rows = dict(re.findall(r"\(notebooks/(\w+)\.ipynb\) \|.*\| (\d+ \+ \d+) \|$", README, re.MULTILINE))
    said = {}
    for path in book_pages.notebooks():
        minutes = re.match(r"(\d+) minutes to read and (\d+) for the exercises", book_pages.summary(path).time)
        assert minutes, path.stem
        said[path.stem] = f"{minutes[1]} + {minutes[2]}"
    assert rows == said
    hours = [sum(int(pair.split(" + ")[k]) for pair in said.values()) / 60 for k in (0, 1)]
    assert f"about {hours[0]:.0f} hours to read and {hours[1]:.0f} for the exercises" in README


@pytest.mark.parametrize("page", [ROOT / "README.md", syllabus.TARGET], ids=lambda page: str(page.relative_to(ROOT)))
def test_each_notebook_is_in(page):
    there = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {Path(name).name for name in re.findall(r"\]\(([\w/]+\.ipynb)\)", page.read_text(encoding="utf-8"))} == there

"""What holds of every notebook: tags have claims and claims have tags, links lead somewhere, sliders have one name."""

import re
from pathlib import Path

import nbformat
import pytest

from diffusion_edu.checks import find_claims
from scripts import colab

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def faults(tags: list[str], claims: list[tuple[str, int]]) -> list[str]:
    """What is wrong between the tags of equations and the claims (tag, number of checks) of a notebook."""
    found = [f"equation ({tag}) is never checked" for tag in tags if tag not in {c for c, _ in claims}]
    found += [f"claim ({tag}) is of no equation" for tag, _ in claims if tag not in tags]
    found += [f"claim ({tag}) checks nothing" for tag, checks in claims if checks == 0]
    found += [f"the tag {tag} stands twice" for tag in set(tags) if tags.count(tag) > 1]
    return found


@every_notebook
def test_every_tag_has_a_claim_and_every_claim_a_tag(path):
    tags = [tag for text in sources(path, "markdown") for tag in re.findall(r"\\tag\{([^}]+)\}", text)]
    claims = [(c.tag, c.checks) for code in sources(path, "code") for c in find_claims(code)]
    assert not faults(tags, claims)


def test_the_comparison_of_tags_and_claims_can_fail():
    assert faults(["1.1"], []) and faults([], [("1.1", 1)]) and faults(["1.1"], [("1.1", 0)])
    assert faults(["1.1", "1.1"], [("1.1", 1)])
    assert not faults(["1.1"], [("1.1", 1), ("1.1", 2)])


@every_notebook
def test_equation_numbers_begin_with_the_notebooks(path):
    first = path.stem.split("_")[0]
    number = first if first.isalpha() else str(int(first))
    tags = [tag for text in sources(path, "markdown") for tag in re.findall(r"\\tag\{([^}]+)\}", text)]
    assert all(tag.split(".")[0] == number for tag in tags)


@every_notebook
def test_links_to_files_lead_somewhere(path):
    for text in sources(path, "markdown"):
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"https?://|#|mailto:", target):
                assert (path.parent / target.split("#")[0]).exists(), f"{path.name} links to {target}"


@every_notebook
def test_the_header_says_what_for_what_is_needed_and_how_long(path):
    header = sources(path, "markdown")[0]
    for words in ("After this notebook you will be able to", "You need", "minutes to read", "to run"):
        assert words in header, f"the first cell of {path.name} does not say: {words}"


@every_notebook
def test_the_header_adds_up_the_minutes_of_the_exercises(path):
    text = "\n".join(sources(path, "markdown"))
    each = re.findall(r"^### .*\((?:[^()]*, )?(\d+) minutes[^()]*\)", text, re.MULTILINE)
    said = re.search(r"(\d+) for the exercises", text)
    assert each and said and int(said[1]) == sum(map(int, each))


@every_notebook
def test_a_heading_has_words_beside_its_formulas(path):
    """A table of contents links to it, and a screen reader reads no link of formulas alone."""
    for text in sources(path, "markdown"):
        for heading in re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text), re.MULTILINE):
            assert re.search(r"[A-Za-z]{2}", re.sub(r"\$[^$]*\$", "", heading)), f"{path.name}: {heading}"


@every_notebook
def test_sliders_have_names_of_their_own(path):
    code = "\n".join(sources(path, "code"))
    slugs = re.findall(r'^\s*"([a-z][a-z0-9]*(?:-[a-z0-9]+)+)",$', code, re.MULTILINE)
    assert len(slugs) == len(set(slugs))


@every_notebook
def test_cell_ids_are_words_an_author_gave(path):
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", id) and not re.fullmatch(r"[0-9a-f]{8}", id) for id in ids)


@every_notebook
def test_the_cell_behind_the_header_installs_the_course_in_colab(path):
    cell = nbformat.read(path, as_version=4).cells[1]
    assert cell.source == colab.source(), f"run `python -m scripts.colab`: {path.name} has no such cell, or an old one"
    assert cell.metadata["tags"] == ["nbval-skip"]  # nothing is installed where the tests run
    assert (ROOT / "constraints.txt").is_file() and "/main/constraints.txt" in cell.source

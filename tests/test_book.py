"""The book's sources: links, citations, index of equations, launch links; workflows, forms. The site is in browser."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import diffusion_edu
from scripts import book, book_pages

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = book_pages.notebooks()
PAGES = sorted((ROOT / "book").glob("*.md"))


def markdown_of(path: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


# ------------------------------------------------------------------------------------------------ links


PLACES = {"notebooks/04_elbo.ipynb": "notebooks/04_elbo.ipynb", "docs/training_at_scale.md": "training_at_scale.md"}


@pytest.mark.parametrize(
    ("at", "place", "text", "turned"),
    [
        ("book/how_to.md", "how_to.md", "[x](../notebooks/04_elbo.ipynb)", "[x](notebooks/04_elbo.ipynb)"),
        ("notebooks/01.ipynb", "notebooks/01.ipynb", "[x](04_elbo.ipynb#a)", "[x](04_elbo.ipynb#a)"),
        ("README.md", "index.md", "[x](docs/training_at_scale.md)", "[x](training_at_scale.md)"),
        ("README.md", "index.md", "[x](LICENSE)", f"[x]({book_pages.repository()}/blob/main/LICENSE)"),
        ("README.md", "index.md", "[x](recipes)", f"[x]({book_pages.repository()}/tree/main/recipes)"),
        ("README.md", "index.md", "[x](https://arxiv.org/abs/1)", "[x](https://arxiv.org/abs/1)"),
        ("README.md", "index.md", "[x](#there)", "[x](#there)"),
        ("README.md", "index.md", "`[x](LICENSE)`", "`[x](LICENSE)`"),
    ],
)
def test_links_lead_where_their_targets_stand_in_the_book(at, place, text, turned):
    assert book.with_links(text, at, place, PLACES) == turned


def test_a_link_to_nowhere_is_refused_with_a_sentence():
    with pytest.raises(book.BookError, match=r"there is no docs/nowhere\.md"):
        book.with_links("[x](docs/nowhere.md)", "README.md", "index.md", PLACES)


def test_pictures_inside_html_become_files_that_load_lazily(tmp_path):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    staged = book.Stage(tmp_path, {})
    html = staged.without_pictures(f'<img src="data:image/png;base64,{pixel}">', "notebooks/01.ipynb")
    (path,) = (tmp_path / "_static" / "frames").iterdir()
    assert html == f'<img loading="lazy" decoding="async" src="../_static/frames/{path.name}">'
    assert path.read_bytes().startswith(b"\x89PNG")


def test_only_what_has_changed_gets_a_new_time(tmp_path):
    old, fresh = tmp_path / "source", tmp_path / "fresh"
    for folder, changed in ((old, "before"), (fresh, "after!")):  # of one length
        (folder / "notebooks").mkdir(parents=True)
        (folder / "notebooks" / "same.md").write_text("same")
        (folder / "changed.md").write_text(changed)
    (old / "gone.md").touch(), (fresh / "new.md").touch()
    for path in old.rglob("*.md"):
        os.utime(path, (0, 1000))
    book.renewed(old, fresh)
    times = {str(path.relative_to(old)): path.stat().st_mtime for path in old.rglob("*.md")}
    assert times.pop("notebooks/same.md") == 1000
    assert sorted(times) == ["changed.md", "new.md"] and min(times.values()) > 1000
    assert (old / "changed.md").read_text() == "after!" and not fresh.exists()


# ------------------------------------------------------------------------------------------------ citations


def test_every_paper_that_is_linked_to_is_in_the_bibliography():
    missing = []
    for path in [*NOTEBOOKS, *PAGES]:
        text = markdown_of(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        for address in re.findall(r"\]\((https?://(?:arxiv\.org|doi\.org)/(?:[^()\s]|\([^()\s]*\))+)\)", text):
            if address not in book_pages.keys():
                missing.append(f"{path.name}: {address}")
    assert not missing, "\n".join(missing)


def test_a_link_to_a_paper_carries_its_citation_and_another_link_does_not():
    ddpm = "[DDPM](https://arxiv.org/abs/2006.11239)"
    assert book_pages.cited(ddpm) == f"{ddpm} {{cite}}`ho2020denoising`"
    assert book_pages.cited("[x](https://arxiv.org/abs/0)") == "[x](https://arxiv.org/abs/0)"


def test_no_address_stands_twice_in_the_bibliography():
    addresses = re.findall(r"url = \{([^}]+)\}", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"))
    assert len(addresses) == len(set(addresses)) == len(book_pages.keys())


# ------------------------------------------------------------------------------------------------ what is drawn


def test_every_equation_is_in_the_index_with_its_statement_and_its_kind_and_is_green():
    tags = [tag for path in NOTEBOOKS for tag in re.findall(r"\\tag\{([^}]+)\}", markdown_of(path))]
    found = book_pages.equations()
    assert [equation.tag for equation in found] == tags and len(tags) > 100
    assert not [equation.tag for equation in found if not (equation.statements and equation.kinds and equation.green)]
    index = book_pages.equation_index()
    assert all(f"[({tag})]" in index for tag in tags)


def test_an_equation_without_its_tick_is_not_green(monkeypatch):
    monkeypatch.setattr(book_pages, "text_of", lambda cell: "")
    book_pages.equations.cache_clear()
    try:
        assert not any(equation.green for equation in book_pages.equations())
    finally:
        book_pages.equations.cache_clear()


def test_every_kind_of_check_that_a_claim_has_is_named_in_the_index():
    from diffusion_edu.checks import Claim

    checks = {name for name in vars(Claim) if not name.startswith("_") and callable(getattr(Claim, name))}
    assert checks <= set(book_pages.KINDS)


def test_every_notebook_says_its_aims_needs_and_time_on_the_syllabus():
    page = book_pages.syllabus()
    for path in NOTEBOOKS:
        about = book_pages.summary(path)
        assert about.aims and about.needs and "minutes to read" in about.time and about.title in page
        assert f"_static/cards/{path.stem}.png" in page


def test_a_notebook_that_is_in_no_part_is_refused(monkeypatch):
    monkeypatch.setattr(book_pages, "notebooks", lambda: [ROOT / "notebooks" / "99_new.ipynb"])
    with pytest.raises(ValueError, match="where notebook 99 belongs"):
        book_pages.parts()


def test_the_map_shows_the_real_imports():
    assert {"schedule", "gaussian"} <= book_pages.imports(ROOT / "diffusion_edu" / "process.py")
    assert {"trainer", "unet"} <= book_pages.imports(
        ROOT / "diffusion_edu" / "cli"
    )  # a folder: two dots lead out of it
    assert book_pages.drawing().count("<rect") == len(book_pages.modules())
    height = book_pages.floors()
    assert all(height[path.stem] > height[low] for path in book_pages.modules() for low in book_pages.imports(path))


def test_each_card_is_a_picture_of_its_notebook(tmp_path):
    from PIL import Image

    book_pages.draw_cards(tmp_path)
    for path in NOTEBOOKS:
        with Image.open(tmp_path / f"{path.stem}.png") as card:
            assert card.size == (640, 320)
            assert len(card.convert("RGB").getcolors(640 * 320) or []) > 8


# ------------------------------------------------------------------------------------------------ launch, and workflows


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_launch_links_have_their_form_and_their_targets_exist(path):
    line = book_pages.launch_links(path.stem)
    place = book_pages.repository().removeprefix("https://github.com/")
    forms = {
        "Colab": rf"https://colab\.research\.google\.com/github/{place}/blob/main/(.+)",
        "Binder": rf"https://mybinder\.org/v2/gh/{place}/HEAD\?urlpath=lab/tree/(.+)",
        "Codespaces": rf"https://codespaces\.new/{place}(.*)",
        "source": rf"https://github\.com/{place}/blob/main/(.+)",
    }
    links = dict(re.findall(r"\[(\w+)\]\(([^)]+)\)", line))
    assert set(links) == set(forms)
    for where, form in forms.items():
        target = re.fullmatch(form, links[where])
        assert target and (ROOT / target[1]).exists()
    assert (ROOT / ".binder").is_dir() and (ROOT / ".devcontainer" / "devcontainer.json").is_file()


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_can_be_read_and_calls_commands_that_exist(path):
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flow["name"] and flow["jobs"] and (flow.get("on") or flow.get(True))
    verbs = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in flow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            for verb in re.findall(r"\bmake ([a-z]+)", step.get("run", "")):
                assert verb in verbs, f"{path.name} calls make {verb}"
            for file in re.findall(r"(?:^|\s)\./?([.\w/]+)", step.get("run", "")):
                if not file.startswith("venv"):  # which the step before has made
                    assert (ROOT / file).exists() or (ROOT / f".{file}").exists(), f"{path.name} calls {file}"


def test_there_is_a_workflow_for_each_promise():
    assert {path.stem for path in WORKFLOWS} == {"tests", "book", "weekly", "links"}


def test_the_forms_for_issues_ask_for_what_they_need():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [path.stem for path in forms] == ["config", "course", "package"]
    for path in forms[1:]:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"]
        required = [field for field in form["body"] if field.get("validations", {}).get("required")]
        assert len(required) >= 2 and all(field["attributes"]["label"] for field in form["body"])


def test_the_form_asks_for_versions_by_a_command_that_works():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "package.yml").read_text(encoding="utf-8"))
    text = form["body"][-1]["attributes"]["description"]
    program = re.search(r'`python -c "(.*)"`', text)[1]
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert diffusion_edu.__version__ in said and torch.__version__ in said

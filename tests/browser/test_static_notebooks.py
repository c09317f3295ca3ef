"""Every slider that a notebook stores, in a plain page: what the book shows, and a reader who runs nothing."""

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
MOST_BYTES = 700_000


def players(path: Path) -> list[tuple[str, str]]:
    """(slug, HTML) of each player in a notebook's stored outputs."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            html = output.get("data", {}).get("text/html", "")
            if 'class="frame-slider"' in html:
                slug = re.search(r'<figure class="frame-slider" id="([^"]+)"', html)
                assert slug is not None
                found.append((slug[1], html))
    return found


PLAYERS = [pytest.param(slug, html, id=f"{path.stem}-{slug}") for path in NOTEBOOKS for slug, html in players(path)]


@pytest.mark.parametrize(("slug", "html"), PLAYERS)
def test_a_stored_slider_is_moved_by_keys_and_shows_another_picture(slug, html, browser, tmp_path):
    assert len(html.encode()) <= MOST_BYTES
    file = tmp_path / "page.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><title>A page</title>{html}', encoding="utf-8")
    context = browser.new_context(viewport={"width": 900, "height": 900})
    context.set_default_timeout(10_000)
    try:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        slider, window = page.get_by_role("slider"), page.locator(f"#{slug} > div").first
        box = window.bounding_box()
        assert box is not None and box["width"] <= 884, "it is wider than its page"
        seen = []
        for key in ("Home", "ArrowRight", "End"):
            slider.press(key)
            value = slider.get_attribute("aria-valuetext")
            assert value, "a screen reader would be told nothing"
            expect(page.get_by_role("status")).to_have_text(value)
            seen.append((value, window.screenshot()))
        assert len({value for value, _ in seen}) == len({picture for _, picture in seen}) == 3
        assert not complaints
    finally:
        context.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_stores_a_slider_and_each_has_a_name_of_its_own(path):
    slugs = [slug for slug, _ in players(path)]
    assert slugs and len(slugs) == len(set(slugs))

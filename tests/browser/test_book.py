"""The finished book in a real browser: it asks for nothing outside, its sliders move, and it can be read without eyes.

The book is built once. Every page of it is opened, but for the listings of the package's source, of which one is.
"""

import functools
import gzip
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from scripts.book import fetched

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
AXE = (
    "https://registry.npmjs.org/axe-core/-/axe-core-4.10.3.tgz",
    "0f2b4d7dcdf7d1219df8d1959ad68e565f51d14c3f0d88bb71cd59abeb956292",
    "package/axe.min.js",
)
AT_MOST = 3_000_000  # bytes that a page sends at first load
# Formulas are set, and what is near the window has come.
SETTLED = """async () => {
  await window.MathJax?.startup?.promise;
  await Promise.all([...document.images].filter((i) => i.loading !== "lazy").map((i) => i.decode().catch(() => {})));
}"""
SERIOUS = """async () => {
  const found = await axe.run({ exclude: [["mjx-container"]] }, { resultTypes: ["violations"] });
  return found.violations.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" | ")}`);
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that packs text, as those for static sites do, and does not write what it is asked for."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if path.suffix not in (".html", ".css", ".js", ".svg") or not path.is_file():
            return super().do_GET()
        content = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@dataclass
class Watched:
    """A page and what went wrong on it."""

    page: Page
    own: str  # how the addresses of the book begin
    faults: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    weight: int = 0

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("requestfailed", self.failed)
        self.page.on("request", self.asked)
        self.page.on("response", self.answered)

    def failed(self, request: object) -> None:
        # What the page before still wanted when it was left, its icon for one, is given up by the browser itself.
        if request.failure != "net::ERR_ABORTED":  # type: ignore[attr-defined]
            self.faults.append(f"failed: {request.url[:200]}: {request.failure}")  # type: ignore[attr-defined]

    def asked(self, request: object) -> None:
        url = request.url  # type: ignore[attr-defined]
        if not url.startswith((self.own, "data:", "blob:")):
            self.outside.append(url)

    def answered(self, response: object) -> None:
        url = response.url  # type: ignore[attr-defined]
        if url.startswith("http"):
            self.weight += int(response.headers.get("content-length", 0))  # type: ignore[attr-defined]
            if response.status >= 400:  # type: ignore[attr-defined]
                self.faults.append(f"{response.status}: {url}")  # type: ignore[attr-defined]

    def open(self, place: str) -> None:
        self.faults.clear(), self.outside.clear()
        self.weight = 0
        self.page.goto(f"{self.own}/{place}")
        self.page.evaluate(SETTLED)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, built."""
    out = tmp_path_factory.mktemp("book") / "html"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.book", "--out", str(out)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """Its address on this machine."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pages(site: Path) -> list[str]:
    every = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    every = [place for place in every if not place.startswith("_static/")]  # the theme's own pieces
    listings = [place for place in every if place.startswith("_modules/")]
    return [place for place in every if not place.startswith("_modules/")] + listings[-1:]


def test_every_page_is_whole_and_light_asks_for_nothing_outside_and_its_sliders_move(site, served, context):
    watched = Watched(context.new_page(), served)
    wrong, moved = [], 0
    for place in pages(site):
        watched.open(place)
        wrong += [f"{place} asks for {url}" for url in watched.outside]
        if watched.weight > AT_MOST:
            wrong.append(f"{place} weighs {watched.weight / 1e6:.1f} MB at first load")
        unread = watched.page.locator("mjx-merror, [data-mjx-error]").count()
        if unread:
            wrong.append(f"{place}: MathJax cannot read {unread} formulas")
        for figure in watched.page.locator("figure.frame-slider").all():
            wrong += [f"{place}: {fault}" for fault in faults_of(figure)]
            moved += 1
        wrong += [f"{place}: {fault}" for fault in watched.faults]
    sheets = sum(
        (site / place).read_text(encoding="utf-8").count('<figure class="frame-slider"') for place in pages(site)
    )
    assert moved == sheets and moved > len(list((site / "notebooks").glob("*.html"))) and len(pages(site)) > 40
    assert not wrong, "\n".join(wrong)


def faults_of(figure: Locator) -> list[str]:
    """Moves a slider by keyboard and by mouse, and looks at its picture."""
    slider, picture = figure.locator("input[type=range]"), figure.locator("div > img")
    figure.scroll_into_view_if_needed()
    picture.evaluate("async (image) => { image.loading = 'eager'; await image.decode(); }")
    if figure.locator("button").inner_text() == "Pause":
        figure.locator("button").click()
    name, found = (slider.get_attribute("aria-label") or "").strip(), []
    where = "(image) => [image.style.left, image.style.top, image.alt].join()"
    slider.focus()
    slider.press("Home")
    first, seen = picture.evaluate(where), picture.locator("..").screenshot()
    slider.press("End")
    said = slider.get_attribute("aria-valuetext")
    if not name:
        found.append("a slider without a name")
    if picture.evaluate(where) == first:
        found.append(f"{name} does not move by keyboard")
    if picture.locator("..").screenshot() == seen:
        found.append(f"{name} moves and its picture does not change")
    if not said or said not in (picture.get_attribute("alt") or ""):
        found.append(f"{name}: the picture's words do not follow")
    box = slider.bounding_box()
    assert box is not None
    slider.page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    if slider.get_attribute("aria-valuetext") == said:
        found.append(f"{name} does not move by mouse")
    return found


def test_it_works_from_a_folder_without_a_server(site, context):
    watched = Watched(context.new_page(), site.as_uri())
    wrong = []
    for place in ("index.html", "syllabus.html", "notebooks/04_elbo.html", "reference/schedule.html"):
        watched.open(place)
        wrong += [f"{place}: {fault}" for fault in watched.faults]
        wrong += [f"{place} asks for {url}" for url in watched.outside]
        if "04_elbo" in place:
            assert watched.page.locator("mjx-container").count() > 100  # its formulas are set
    assert not wrong, "\n".join(wrong)


def test_a_picture_that_is_not_there_would_be_seen(context, tmp_path):
    (tmp_path / "page.html").write_text('<img src="nowhere.png" alt="">', encoding="utf-8")
    watched = Watched(context.new_page(), tmp_path.as_uri())
    watched.open("page.html")
    assert any("nowhere.png" in fault for fault in watched.faults)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing_serious(site, served, browser, scheme, request):
    """One page of each kind; every page with --every-notebook, which takes a quarter of an hour."""
    kinds = ["index", "syllabus", "map", "how_to", "mistakes", "bibliography", "notebooks/00_quickstart"]
    kinds += ["reference/process"]
    every = [place for place in pages(site) if not place.startswith(("_modules", "genindex", "py-modindex"))]
    asked = every if request.config.getoption("--every-notebook") else [f"{k}.html" for k in kinds]
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    checker = fetched(*AXE).read_text(encoding="utf-8")
    wrong = []
    for place in asked:
        page.goto(f"{served}/{place}")
        page.evaluate(SETTLED)
        page.evaluate(checker)
        wrong += [f"{place}: {fault}" for fault in page.evaluate(SERIOUS)]
    context.close()
    assert not wrong, "\n".join(wrong)


def test_the_search_finds_a_notebook(served, context):
    page = context.new_page()
    page.goto(f"{served}/search.html?q=Tweedie")
    page.locator("#search-results li a").first.wait_for()
    found = page.locator("#search-results li a").evaluate_all("(links) => links.map((link) => link.href)")
    assert any("03_reverse_process" in link for link in found)


def test_the_landing_page_plays_by_itself_where_motion_is_welcome(served, browser):
    for motion, plays in (("no-preference", True), ("reduce", False)):
        context = browser.new_context(reduced_motion=motion)
        page = context.new_page()
        page.goto(f"{served}/index.html")
        slider = page.locator(".landing input[type=range]")
        page.wait_for_timeout(1500)
        assert (slider.input_value() != "0") is plays
        context.close()


def test_nothing_is_wider_than_a_phone(site, served, browser):
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    for place in ("index.html", "syllabus.html", "equations.html", "notebooks/04_elbo.html", "reference/schedule.html"):
        page.goto(f"{served}/{place}")
        page.evaluate(SETTLED)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{place} is {wide} pixels wide"
    context.close()


def test_a_formula_that_is_a_little_too_wide_is_set_smaller(served, browser):
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    page.goto(f"{served}/notebooks/12_sdes.html")
    page.evaluate(SETTLED)
    page.wait_for_function("document.querySelector('article mjx-container[style*=font-size]')")
    measured = """() => [...document.querySelectorAll("article div.math mjx-container")]
      .map((box) => [box.scrollWidth - box.clientWidth, box.style.fontSize])"""
    widths = page.evaluate(measured)
    assert sum(size != "" for _, size in widths) >= 2
    assert all(over <= 1 or size == "80%" for over, size in widths), widths  # widths are rounded to whole pixels
    context.close()


def test_links_within_the_book_lead_to_places_that_are_there(site):
    anchors = {
        place: set(re.findall(r'\sid="([^"]+)"', (site / place).read_text(encoding="utf-8"))) for place in pages(site)
    }
    wrong = []
    for place in anchors:
        text = re.sub(r"<script.*?</script>", "", (site / place).read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r'href="([^"]+)"', text):
            if re.match(r"[a-z]+:", target) or target.startswith("_modules") or "/_modules/" in target:
                continue
            path, _, anchor = target.split("?")[0].partition("#")
            goal = os.path.normpath(os.path.join(os.path.dirname(place), path)) if path else place
            if not (site / goal).exists():
                wrong.append(f"{place} links to {target}: no such file")
            elif anchor and goal in anchors and anchor not in anchors[goal]:
                wrong.append(f"{place} links to {target}: no such place")
    assert not wrong, "\n".join(sorted(set(wrong))[:40])


def test_the_reference_links_to_source(site):
    text = (site / "reference" / "schedule.html").read_text(encoding="utf-8")
    assert "_modules/diffusion_edu/schedule.html#CosineSchedule" in text

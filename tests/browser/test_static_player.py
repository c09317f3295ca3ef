"""The HTML player in a plain page, opened from a file: no kernel, no server, no network."""

import io
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from diffusion_edu.widgets import FrameSlider

pytestmark = pytest.mark.browser

# Six frames, each of one gray on the left and another on the right, in a sheet of three rows.
FRAMES = np.stack([np.tile(np.array([40 * k, 250 - 40 * k], np.uint8), (6, 4)) for k in range(6)])


def player(slug: str = "stripes", title: str = "Stripes swap") -> FrameSlider:
    return FrameSlider(FRAMES, [f"0.{k}" for k in range(6)], slug, title=title, scale=10, interval=0.05)


@dataclass
class Opened:
    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def window(self, slug: str = "stripes") -> Locator:
        """What shows the frame."""
        return self.page.locator(f"#{slug} > div").first

    def slider(self, slug: str = "stripes") -> Locator:
        return self.page.locator(f"#{slug}").get_by_role("slider")


@pytest.fixture
def show(browser, tmp_path):
    """Opens HTML from a file, and keeps what the page asked for and complained of."""
    contexts = []

    def opened(body: str, clock: bool = False, **options: object) -> Opened:
        file = tmp_path / "page.html"
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>A page</title>'
        style = "font-size:10px;line-height:20px;margin:0"  # everything begins at a whole pixel
        file.write_text(f'<!doctype html>{head}<body style="{style}">{body}</body>', encoding="utf-8")
        context = browser.new_context(**options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        it = Opened(context.new_page())
        it.page.on("request", lambda request: it.requests.append(request.url))
        it.page.on("console", lambda message: it.errors.append(message.text))
        it.page.on("pageerror", lambda error: it.errors.append(str(error)))
        if clock:  # the page's time then moves only when the test says so
            it.page.clock.install(time=0)
        it.page.goto(file.as_uri())
        if clock:
            it.page.clock.pause_at(60_000)
        return it

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("keys", "frame"),
    [(["ArrowRight"], 1), (["End"], 5), (["End", "ArrowLeft"], 4), (["End", "Home"], 0), (["ArrowRight"] * 3, 3)],
)
def test_keys_move_the_slider_and_show_that_frame(show, keys, frame):
    it = show(player().html())
    for key in keys:
        it.slider().press(key)
    expect(it.page.get_by_role("status")).to_have_text(f"t = 0.{frame}")
    assert shown_grays(it.window()) == (40 * frame, 250 - 40 * frame)
    assert not it.errors


def shown_grays(window: Locator) -> tuple[int, int]:
    """The gray of the first and the second pixel of the frame, as the screen has them."""
    picture = np.asarray(Image.open(io.BytesIO(window.screenshot())).convert("RGB"))
    height, width = picture.shape[:2]
    assert (height, width) == (60, 80)
    assert (picture[:, :10] == picture[0, 0]).all(), "another frame, or a blur, is seen at the edge"
    return int(picture[5, 5, 0]), int(picture[5, 15, 0])


def test_nothing_is_asked_of_the_network(show):
    it = show(player().html())
    it.slider().press("ArrowRight")
    it.page.wait_for_load_state("networkidle")
    assert [url for url in it.requests if not url.startswith("data:")] == [it.page.url]
    assert it.page.url.startswith("file://")


def test_two_players_on_a_page_move_apart(show):
    it = show(player("first").html() + player("second").html())
    before = it.window("second").screenshot()
    it.slider("first").press("End")
    assert shown_grays(it.window("first")) == (200, 50)
    assert it.window("second").screenshot() == before
    it.slider("second").press("ArrowRight")
    assert shown_grays(it.window("first")) == (200, 50) and shown_grays(it.window("second")) == (40, 210)


def test_the_same_player_twice_on_a_page_moves_apart(show):
    it = show(player().html() * 2)
    first, second = it.page.get_by_role("slider").all()
    second.press("End")
    expect(second).to_have_attribute("aria-valuetext", "t = 0.5")
    expect(first).to_have_attribute("aria-valuetext", "t = 0.0")


def test_a_screen_reader_is_told_what_is_shown(show):
    it = show(player().html())
    group = it.page.get_by_role("group", name="Stripes swap")
    expect(group.get_by_role("img", name="Stripes swap: t = 0.0")).to_be_visible()
    slider = group.get_by_role("slider", name="t", exact=True)
    expect(slider).to_have_attribute("aria-valuetext", "t = 0.0")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "t = 0.1")
    expect(group.get_by_role("img", name="Stripes swap: t = 0.1")).to_be_visible()


def test_titles_and_labels_are_text_and_never_markup(show):
    nasty = """</script><b id="b">"'&<!--@last@ \\u003c"""
    it = show(FrameSlider(FRAMES, [nasty] * 6, "nasty", title=nasty, caption=nasty, value_name=nasty).html())
    assert not it.errors and it.page.locator("#b").count() == 0
    expect(it.page.get_by_role("slider", name=nasty)).to_be_enabled()
    expect(it.page.locator("figcaption strong")).to_have_text(nasty)
    it.slider("nasty").press("End")
    expect(it.page.locator("output")).to_have_text(f"{nasty} = {nasty}")


def test_play_goes_to_the_end_and_stops_there(show):
    it = show(player().html(), clock=True)
    status = it.page.get_by_role("status")
    it.slider().press("End")  # from the end, it begins again
    it.page.get_by_role("button", name="Play").click()
    expect(it.page.get_by_role("button", name="Pause")).to_be_visible()
    seen = [status.inner_text()]
    for _ in range(5):
        it.page.clock.run_for(50)
        seen.append(status.inner_text())
    assert seen == [f"t = 0.{k}" for k in range(6)]
    it.page.clock.run_for(500)
    expect(status).to_have_text("t = 0.5")
    expect(it.page.get_by_role("button", name="Play")).to_be_visible()
    it.page.clock.run_for(500)
    it.slider().evaluate("slider => { slider.value = 0 }")  # moved without a sound: nothing would stop a timer
    it.page.clock.run_for(500)
    assert it.slider().input_value() == "0", "a timer runs on after the end"


def test_pause_and_a_key_stop_it(show):
    it = show(player().html(), clock=True)
    button, status = it.page.get_by_role("button"), it.page.get_by_role("status")
    button.press("Enter")
    it.page.clock.run_for(100)
    expect(status).to_have_text("t = 0.2")
    button.press("Enter")
    expect(button).to_have_text("Play")
    it.page.clock.run_for(500)
    expect(status).to_have_text("t = 0.2")
    button.press("Enter")
    it.slider().press("Home")
    expect(button).to_have_text("Play")
    it.page.clock.run_for(500)
    expect(status).to_have_text("t = 0.0")


def test_who_wants_less_motion_is_offered_no_play(show):
    it = show(player().html(), reduced_motion="reduce")
    expect(it.page.get_by_role("button")).to_have_count(0)
    it.slider().press("ArrowRight")
    expect(it.page.get_by_role("status")).to_have_text("t = 0.1")


def test_without_script_it_shows_the_first_frame_and_says_so(show):
    it = show(player().html(), java_script_enabled=False)
    assert shown_grays(it.window()) == (0, 250)
    expect(it.page.locator("input")).to_be_disabled()
    expect(it.page.get_by_text(re.compile("^The slider moves where scripts run"))).to_be_visible()
    expect(it.page.get_by_role("button")).to_have_count(0)


def test_it_fits_a_phone(show):
    frames = np.zeros((4, 120, 500), np.uint8)
    wide = FrameSlider(frames, ["0", "1", "2", "3"], "wide", title="A wide picture", scale=2)
    it = show(wide.html(), viewport={"width": 360, "height": 640})
    assert it.page.evaluate("document.documentElement.scrollWidth") <= 360
    box = it.window("wide").bounding_box()
    assert box is not None and abs(box["width"] / box["height"] - 500 / 120) < 0.05


def test_it_is_read_on_a_dark_page(show):
    it = show(f'<div style="background:#111;color:#eee">{player().html()}</div>')
    for part in ("figcaption", "button", "output"):
        assert it.page.locator(part).evaluate("part => getComputedStyle(part).color") == "rgb(238, 238, 238)", part

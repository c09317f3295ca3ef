"""The sliders in real JupyterLab, with a kernel: a key moves the slider, Python sends another picture."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import expect

from diffusion_edu.widgets import FrameSlider
from scripts.notebook_execution import clear_outputs

pytestmark = pytest.mark.browser

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))

SECONDS_TO_RUN = 1500  # under --every-notebook 00 trains: minutes on two cores of its own, and CI's may be shared

SLIDERS = """
import numpy as np
from diffusion_edu.widgets import FrameSlider

def slider(slug):
    frames = np.arange(12, dtype=np.uint8).reshape(4, 1, 3).repeat(8, axis=1) * 20
    return FrameSlider(frames, ["0.0", "0.1", "0.2", "0.3"], slug, title=f"Stripes, {slug}", scale=10)
"""


@pytest.fixture
def two_sliders(add_notebook):
    cells = [new_code_cell(SLIDERS), new_code_cell("slider('first')"), new_code_cell("slider('second')")]
    return add_notebook("two_sliders.ipynb", new_notebook(cells=cells))


def test_live_slider_changes_picture(run_notebook, two_sliders, moves_by_keyboard):
    page = run_notebook(two_sliders)
    first, second = page.locator(".frame-slider.widget-vbox").all()
    other = second.locator("img").screenshot()
    moves_by_keyboard(page, first.get_by_role("slider"), first.locator("img"), "ArrowRight")
    expect(first.locator("div.widget-label")).to_have_text("t = 0.1")
    expect(first.locator("img")).to_have_attribute("title", "Stripes, first: t = 0.1")
    moves_by_keyboard(page, first.get_by_role("slider"), first.locator("img"), "End")
    expect(first.locator("div.widget-label")).to_have_text("t = 0.3")
    assert second.locator("img").screenshot() == other


def test_a_notebook_that_is_only_read_shows_the_first_frame_and_a_slider_that_says_it_rests(
    open_notebook, add_notebook
):
    space: dict = {}
    exec(SLIDERS, space)
    slider: FrameSlider = space["slider"]("read")
    data = {"text/html": slider.html(), "text/plain": repr(slider)}
    output = new_output("execute_result", data=data, execution_count=1)
    cell = new_code_cell("slider('read')", outputs=[output], execution_count=1)
    page = open_notebook(add_notebook("read.ipynb", new_notebook(cells=[cell])))
    player = page.locator("figure.frame-slider")
    expect(player.locator("input")).to_be_disabled()
    expect(player.get_by_text("The slider moves where scripts run")).to_be_visible()
    window = player.locator("div", has=page.locator("img")).first.bounding_box()
    assert window is not None
    assert (window["width"], window["height"]) == (30, 80)  # one frame, not the whole sheet


@pytest.mark.slow
def test_every_slider_of_the_notebook_changes_its_picture(live_notebook, run_notebook, moves_by_keyboard):
    page = run_notebook(live_notebook, seconds=SECONDS_TO_RUN)
    sliders = page.locator(".frame-slider.widget-vbox").all()
    assert len(sliders) >= (2 if live_notebook.startswith("00") else 1)  # 00: one over noising, one over denoising
    for slider in sliders:
        moves_by_keyboard(page, slider.get_by_role("slider"), slider.locator("img"), "ArrowRight")


@pytest.mark.slow
def test_twenty_notebooks_that_run_at_once_in_one_jupyterlab_all_finish(request, add_notebook, run_at_once):
    if not request.config.getoption("--every-notebook"):
        pytest.skip("half an hour on two cores; --every-notebook runs it")
    names = []
    for k in range(20):
        notebook = nbformat.read(NOTEBOOKS[-1 - k % len(NOTEBOOKS)], as_version=4)  # 00, the longest, once
        clear_outputs(notebook)
        names.append(add_notebook(f"at_once_{k}.ipynb", notebook))
    for name, (left, errors) in run_at_once(names, SECONDS_TO_RUN).items():
        assert left == 0 and errors == [], f"{name}: {left} cells were not run; {errors}"

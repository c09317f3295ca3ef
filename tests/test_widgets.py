import base64
import builtins
import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_edu.viz import tile
from diffusion_edu.widgets import MAX_BYTES, WIDGET_VIEW, FrameSlider

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (7, 6, 10), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (7, 6, 10, 3), dtype=np.uint8)
LABELS = [f"{k / 6:.2f}" for k in range(7)]


def slider(frames=GRAY, labels=LABELS, slug="noising", title="Noise", **options):
    return FrameSlider(frames, labels, slug, title=title, **options)


def sheet(player):
    """The player's one picture, and the columns that its script counts with."""
    (data,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", player)
    (columns,) = re.findall(r'"columns": (\d+)', player)
    return Image.open(io.BytesIO(base64.b64decode(data))), int(columns)


def frame(player, k, shape):
    picture, columns = sheet(player)
    pixels = np.asarray(picture.convert("L" if len(shape) == 2 else "RGB"))
    height, width = shape[:2]
    top, left = k // columns * height, k % columns * width
    return pixels[top : top + height, left : left + width]


@pytest.mark.parametrize("frames", [GRAY, COLOUR, GRAY // 86, COLOUR // 128 * 255])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_frame_is_in_the_sheet_as_it_was_given(frames, count):
    player = slider(frames[:count], LABELS[:count]).html()
    for k in range(count):
        assert (frame(player, k, frames.shape[1:]) == frames[k]).all()


def test_the_sheet_is_a_grid_and_not_a_strip():
    picture, columns = sheet(slider(GRAY.repeat(5, axis=0), LABELS * 5).html())
    assert columns > 1 and max(picture.size) < 2 * min(picture.size)


@pytest.mark.parametrize("levels", [2, 5, 16, 256])
def test_grays_keeps_the_nearest_of_evenly_spaced_grays(levels):
    reduced = slider(grays=levels)
    kept = np.round(np.arange(levels) * 255 / (levels - 1))
    assert np.isin(reduced.frames, kept).all()
    step = 255 / (levels - 1)
    assert np.abs(reduced.frames.astype(float) - GRAY).max() <= step / 2 + 0.5
    assert (frame(reduced.html(), 3, (6, 10)) == reduced.frames[3]).all()


def test_sixteen_grays_take_four_bits_of_the_sheet():
    noise = RANDOM.integers(0, 256, (9, 40, 40), dtype=np.uint8)
    full, reduced = (len(slider(noise, ["0"] * 9, grays=grays).html()) for grays in (None, 16))
    assert reduced < 0.6 * full


def test_colours_keeps_no_more_than_asked_and_all_where_they_suffice():
    assert len(np.unique(slider(COLOUR, colours=8).frames.reshape(-1, 3), axis=0)) <= 8
    few = COLOUR // 128 * 255
    assert (slider(few, colours=8).frames == few).all()


def test_the_same_frames_give_the_same_player():
    assert slider().html() == slider(list(GRAY.copy())).html()
    assert slider(title="Other").html() != slider().html()


def test_the_id_is_the_slug_and_does_not_follow_the_pixels():
    for frames in (GRAY, 255 - GRAY):
        assert re.findall(r'\bid="([^"]*)"', slider(frames).html()) == ["noising"]


def test_the_player_asks_nothing_of_the_network():
    assert not re.findall(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]*", "", slider().html()))


def test_both_faces_are_in_one_display():
    faces = slider()._repr_mimebundle_()
    assert set(faces) == {"text/plain", "text/html", WIDGET_VIEW}
    assert faces["text/plain"] == "FrameSlider(noising, 7 frames)"
    assert faces["text/html"].startswith('<figure class="frame-slider" id="noising"')
    assert faces[WIDGET_VIEW]["model_id"]


def test_a_display_may_take_one_face():
    it = slider()
    assert set(it._repr_mimebundle_(include={"text/html"})) == {"text/html"}
    assert set(it._repr_mimebundle_(exclude={WIDGET_VIEW})) == {"text/plain", "text/html"}


def test_the_live_slider_changes_the_image_and_the_text():
    it = slider(scale=3, value_name="s")
    live = it.live
    assert live.slider.options == tuple((f"s = {label}", k) for k, label in enumerate(LABELS))
    for k in (0, 5, 1):
        live.slider.value = k
        shown = np.asarray(Image.open(io.BytesIO(bytes(live.image.value))))
        assert (shown == GRAY[k].repeat(3, axis=0).repeat(3, axis=1)).all()
        assert live.readout.value == f"s = {LABELS[k]}"
        assert live.image.tooltip == f"Noise: s = {LABELS[k]}"
    assert it.live is live


def test_frames_with_the_same_label_are_different_frames():
    live = slider(labels=["0"] * 7).live
    first = bytes(live.image.value)
    live.slider.value = 4
    assert live.slider.index == 4 and bytes(live.image.value) != first


def test_the_live_image_can_be_drawn_with_a_tooltip():
    # ipywidgets' page code looks at the description before it shows a tooltip, and Image has none of its own
    assert slider().live.image.get_state()["description"] == ""


def test_without_ipywidgets_there_is_the_player(monkeypatch):
    real = builtins.__import__

    def fails(name, *args, **kwargs):
        if name.partition(".")[0] == "ipywidgets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fails)
    it = slider()
    assert it.live is None
    assert set(it._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_tiled_images_and_their_tensors_are_frames():
    x = torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    it = slider([tile(x_t, columns=2) for x_t in x], LABELS[:3])
    assert it.frames.shape == (3, 17, 17)
    assert slider(torch.from_numpy(GRAY)).html() == slider().html()


def draw(axes, value):
    axes.plot([0, 1], [0, value])
    axes.set_ylim(0, 3)


def test_figures_are_frames_and_the_same_each_time():
    first, second = (
        FrameSlider.from_figures(draw, [0, 0.5, 3], "lines", title="A line", size=(2, 1.5), dpi=50) for _ in range(2)
    )
    assert first.frames.shape == (3, 75, 100, 3)
    assert first.labels == ("t = 0", "t = 0.5", "t = 3")
    assert first.html() == second.html()
    assert (first.frames[0] != first.frames[2]).any()


def test_figures_of_what_is_no_number_need_labels():
    def write(axes, word):
        axes.set_title(word)

    options = {"title": "A word", "size": (2, 1.5), "dpi": 50, "value_name": "schedule"}
    with pytest.raises(TypeError, match="value 'linear', which is not a number; give labels="):
        FrameSlider.from_figures(write, ["linear", "cosine"], "words", **options)
    it = FrameSlider.from_figures(write, ["linear", "cosine"], "words", labels=["linear", "cosine"], **options)
    assert it.labels == ("schedule = linear", "schedule = cosine")


def test_drawing_figures_leaves_none_open():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    FrameSlider.from_figures(draw, [0, 1], "lines", title="A line", size=(2, 1.5), dpi=50)
    assert plt.get_fignums() == before


def test_a_player_that_is_too_large_says_what_to_take_less_of():
    noise = RANDOM.integers(0, 256, (20, 200, 200), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"noising would take 1\.\d\d MB .* 20 frames of 200x200 .* grays=16"):
        slider(noise, ["0"] * 20)
    fits = slider(noise, ["0"] * 20, grays=16)
    assert 0.5 * MAX_BYTES < len(fits.html().encode()) <= MAX_BYTES
    with pytest.raises(ValueError, match="colours=32"):
        slider(RANDOM.integers(0, 256, (20, 200, 200, 3), dtype=np.uint8), ["0"] * 20)


@pytest.mark.parametrize("slug", ["a", "noising", "noising-digits", "n2-x3"])
def test_a_slug_is_lower_case_with_single_hyphens(slug):
    assert slider(slug=slug).slug == slug


@pytest.mark.parametrize("slug", ["", "Noising", "2d", "a_b", "a b", "-a", "a-", "a--b", 'a"', "é"])
def test_another_slug_is_refused(slug):
    with pytest.raises(ValueError, match=r"got slug=.* give a name of lower-case letters"):
        slider(slug=slug)


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        (GRAY / 255, TypeError, "Slider noising got frame 0 of type float64; give uint8"),
        (torch.zeros(7, 6, 10), TypeError, "viz.tile"),
        (GRAY[:1], ValueError, "got 1 frame.* give two or more"),
        ([], ValueError, "got 0 frame"),
        (GRAY[:, 0], ValueError, r"Slider noising got frame 0 of shape \(10,\); give"),
        (COLOUR[..., :2], ValueError, r"of shape \(6, 10, 2\); give"),
        (np.zeros((2, 0, 3), np.uint8), ValueError, r"of shape \(0, 3\); give"),
        ([GRAY[0], GRAY[1][:3]], ValueError, r"frame 1 of shape \(3, 10\) and frame 0 of shape \(6, 10\); give all"),
    ],
)
def test_what_is_no_frame_is_a_sentence(frames, error, words):
    with pytest.raises(error, match=words):
        slider(frames)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": LABELS[:3]}, "7 frames and 3 labels; give one label"),
        ({"title": " "}, "got an empty title; give one"),
        ({"scale": 0}, "whole number, at least 1"),
        ({"scale": 1.5}, "whole number, at least 1"),
        ({"scale": "2"}, "scale='2'; it must be a whole number"),
        ({"slug": 3}, "got slug=3; give a name"),
        ({"interval": 0}, "interval=0; it must be a positive number of seconds"),
        ({"interval": "1"}, "interval='1'; it must be a positive number"),
        ({"grays": 1}, "grays=1; it can keep 2 to 256"),
        ({"colours": 16}, "colours=16 and gray frames; give grays="),
        ({"frames": COLOUR, "grays": 16}, "grays=16 and frames with colour; give colours="),
        ({"frames": COLOUR, "colours": 257}, "colours=257; it can keep 2 to 256"),
    ],
)
def test_an_option_that_does_not_fit_is_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        slider(**options)


@pytest.mark.parametrize("options", [{"grays": 2.5}, {"grays": "16"}, {"interval": math.inf}])
def test_what_is_no_count_of_grays_and_no_time_is_a_sentence(options):
    frames = np.arange(7 * 60).reshape(7, 6, 10).astype(np.uint8)
    with pytest.raises(ValueError, match=f"Slider a got {next(iter(options))}=.*; it must be"):
        FrameSlider(frames, list("0123456"), "a", title="T", **options)

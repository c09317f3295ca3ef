import io
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffusion_edu.viz import (
    COLOURS,
    SEPARATOR,
    field,
    histogram_against,
    png_bytes,
    save_png,
    scatter,
    show_images,
    tile,
)

IMAGES = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 4, 6)


@pytest.fixture
def axes():
    return Figure().subplots()


def test_tile_lays_images_in_rows_with_a_separator():
    sheet = tile(IMAGES, columns=3, pad=2)
    assert sheet.shape == (2 * 4 + 2, 3 * 6 + 2 * 2) and sheet.dtype == np.uint8
    assert (sheet[:4, :6] == 0).all() and (sheet[:4, 16:] == 128).all() and (sheet[6:, 8:14] == 255).all()
    assert (sheet[4:6] == SEPARATOR).all() and (sheet[:, 6:8] == SEPARATOR).all()
    assert (sheet[6:, 16:] == SEPARATOR).all()  # the place of a sixth image


def test_fewer_images_than_columns_make_a_shorter_row():
    assert tile(IMAGES[:2], columns=8).shape == (4, 6 + 1 + 6)
    assert (tile(IMAGES[:1]) == 0).all()


def test_tile_keeps_channels_and_their_order():
    red = torch.stack([torch.ones(2, 2), -torch.ones(2, 2), -torch.ones(2, 2)])[None]
    assert (tile(red, columns=1) == np.array([255, 0, 0], dtype=np.uint8)).all()


def test_tile_clips_what_lies_outside():
    assert tile(torch.tensor([[[[-9.0, 9.0]]]]), columns=1).tolist() == [[0, 255]]


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4), (2, 2, 4, 4), (0, 1, 4, 4)])
def test_tile_refuses_what_is_no_batch_of_images(shape):
    with pytest.raises(ValueError, match=r"viz\.tile got images of shape .* give at least one"):
        tile(torch.zeros(shape))


def test_tile_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="NaN or infinity"):
        tile(torch.full((1, 1, 2, 2), float("nan")))


@pytest.mark.parametrize(("columns", "pad"), [(0, 1), (2, -1)])
def test_tile_refuses_a_grid_that_is_none(columns, pad):
    with pytest.raises(ValueError, match=r"columns=0; .* at least 1|pad=-1; .* at least 0"):
        tile(IMAGES, columns, pad)


def test_show_images_draws_all_and_says_what_to_see():
    figure = show_images(IMAGES, columns=3, title="From black to white")
    assert figure.axes[0].get_title() == "From black to white"
    assert figure.axes[0].images[0].get_array().shape == tile(IMAGES, 3).shape


def test_show_images_gives_each_its_own_title():
    figure = show_images(IMAGES, columns=3, titles=list("abcde"), title="Five")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "d", "e", ""]
    assert [axes.images[0].get_array().shape for axes in figure.axes[:5]] == [(4, 6)] * 5
    with pytest.raises(ValueError, match="5 images and 2 titles; give one title for each"):
        show_images(IMAGES, titles=["a", "b"])


def test_a_figure_shows_itself_as_the_same_png_each_time():
    first, second = (show_images(IMAGES)._repr_png_() for _ in range(2))
    assert first == second and Image.open(io.BytesIO(first)).format == "PNG"
    assert repr(show_images(IMAGES)).startswith("<Figure size")


def test_scatter_draws_every_point_in_the_courses_colour(axes):
    x = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert scatter(x, axes, colour="learnt", title="Here") is axes
    (cloud,) = axes.collections
    assert np.allclose(cloud.get_offsets(), x.detach())
    assert np.allclose(cloud.get_facecolor()[0][:3], matplotlib.colors.to_rgb(COLOURS["learnt"]))
    assert axes.get_aspect() == 1


def test_field_draws_every_arrow(axes):
    x, v = torch.rand(2, 10, 2, generator=torch.Generator().manual_seed(0))
    field(x, v, axes, scale=2.0, title="There")
    (arrows,) = axes.collections
    assert np.allclose(arrows.XY, x) and np.allclose(np.stack([arrows.U, arrows.V], 1), v)
    assert arrows.scale == 2.0


def test_a_histograms_area_is_the_part_of_the_samples_inside(axes):
    samples = torch.cat([torch.rand(900, generator=torch.Generator().manual_seed(0)), torch.full((100,), 5.0)])
    x = torch.linspace(0, 1, 11)
    histogram_against(samples, x, torch.ones(11), axes)
    area = sum(bar.get_width() * bar.get_height() for bar in axes.patches)
    assert abs(area - 0.9) < 1e-6
    assert np.allclose(axes.lines[0].get_ydata(), 1)


def test_wrong_shapes_and_colours_are_sentences(axes):
    plane = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"^viz.scatter got points x of shape \(3, 3\); give .* \(N, 2\)"):
        scatter(torch.zeros(3, 3), axes)
    with pytest.raises(ValueError, match=r"arrows v of shape \(2, 2\); give one arrow for each point"):
        field(plane, torch.zeros(2, 2), axes)
    with pytest.raises(ValueError, match=r"no colour 'red'; give one of the course's: data, noise"):
        scatter(plane, axes, colour="red")
    with pytest.raises(ValueError, match=r"got samples \(3, 2\), .* give samples \(N,\)"):
        histogram_against(plane, plane[:, 0], plane[:, 0], axes)


def test_what_is_no_tensor_is_a_sentence(axes):
    plane = torch.zeros(3, 2)
    for call in (
        lambda x: tile(x),
        lambda x: show_images(x, titles=["one"]),
        lambda x: scatter(x, axes),
        lambda x: field(x, plane, axes),
        lambda x: field(plane, x, axes),
        lambda x: histogram_against(x, plane[:, 0], plane[:, 0], axes),
        lambda x: histogram_against(plane[:, 0], plane[:, 0], x, axes),
    ):
        with pytest.raises(TypeError, match=r"^viz\.[a-z_]+ got [a-z]+ = .*; give .*tensor"):
            call(np.zeros((3, 2)))


def luminance(colour):
    """Relative luminance, as WCAG 2 defines it."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# Linear RGB as seen without one kind of cone (Viénot, Brettel, Mollon 1999).
WITHOUT_RED_CONES = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
WITHOUT_GREEN_CONES = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])


@pytest.mark.parametrize("cones", [np.eye(3), WITHOUT_RED_CONES, WITHOUT_GREEN_CONES])
def test_colours_differ_for_every_eye(cones):
    seen = {}
    for name, colour in COLOURS.items():
        rgb = np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
        seen[name] = np.clip(cones @ rgb, 0, 1) ** (1 / 2.2)
    for a, b in combinations(COLOURS, 2):
        assert np.abs(seen[a] - seen[b]).max() > 0.12, (a, b)


def test_colours_are_seen_on_white():
    for name, colour in COLOURS.items():
        assert 1.05 / (luminance(colour) + 0.05) > 2.5, name


def test_colours_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        COLOURS["data"] = "red"


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_gives_the_pixels_back_and_the_same_bytes_each_time(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = png_bytes(pixels)
    picture = Image.open(io.BytesIO(data))
    assert (np.asarray(picture) == pixels).all() and not picture.info
    assert data == png_bytes(pixels.copy())


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(2, np.uint8)])
def test_png_takes_only_pictures(pixels):
    with pytest.raises(ValueError, match=r"got pixels of type .* give uint8"):
        png_bytes(pixels)


def test_save_png_makes_folders_and_leaves_only_the_file(tmp_path):
    path = save_png(np.zeros((2, 2), np.uint8), tmp_path / "a" / "b.png")
    assert path.read_bytes() == png_bytes(np.zeros((2, 2), np.uint8))
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]


def test_save_png_leaves_the_old_file_where_it_fails(tmp_path, monkeypatch):
    path = save_png(np.zeros((2, 2), np.uint8), tmp_path / "b.png")
    before = path.read_bytes()

    def fails(source, target):
        raise OSError(28, "no space left")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="could not be written"):
        save_png(np.ones((2, 2), np.uint8), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["b.png"]


@pytest.mark.parametrize("shape", [(2, 1, 0, 4), (2, 1, 4, 0)])
def test_images_without_pixels_are_no_images(shape):
    for call in (tile, show_images):
        with pytest.raises(ValueError, match=r"viz\.tile got images of shape"):
            call(torch.zeros(shape))


@pytest.mark.parametrize("x", [torch.linspace(1, 0, 5), torch.zeros(5), torch.tensor([0.0, 3.0, 1.0, 2.0, 1.5])])
def test_an_x_that_does_not_rise_is_a_sentence(x):
    with pytest.raises(ValueError, match=r"viz\.histogram_against got an x .* sort it"):
        histogram_against(torch.rand(5), x, torch.ones(5), Figure().subplots())

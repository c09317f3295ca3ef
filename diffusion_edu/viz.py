"""Figures of images, clouds of points, vector fields and densities. Used in every notebook.

Nothing is computed here. A function returns a figure for the notebook to show, or draws into axes that the notebook
made. Colours mean the same throughout the course,

    data (blue) · noise (grey) · exact (black) · learnt (vermilion) · other (green)

and come from the palette of Okabe and Ito, which the colour-blind can tell apart. Titles say what to see.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .data import to_uint8
from .door import check_counts, check_tensors
from .storage import write_atomically

__all__ = [
    "COLOURS",
    "Pixels",
    "field",
    "histogram_against",
    "png_bytes",
    "save_png",
    "scatter",
    "show_images",
    "tile",
]

Pixels = npt.NDArray[np.uint8]  # (H, W) gray or (H, W, 3) colour

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "data": "#0072B2",
        "noise": "#999999",
        "exact": "#000000",
        "learnt": "#D55E00",
        "other": "#009E73",
    }
)
SEPARATOR = 96  # the gray between tiled images: it stands out from the digits' black background and from noise


def tile(images: Tensor, columns: int = 8, pad: int = 1) -> Pixels:
    """Images side by side in rows, as pixels.

    Args:
        images: (N, 1, H, W) or (N, 3, H, W), in [-1, 1]; what lies outside, as noised images do, is clipped.
        columns: images in a row, at most. The last row is filled up with the separating gray.
        pad: pixels of gray between two images.

    Returns:
        uint8 of shape (rows (H + pad) - pad, columns (W + pad) - pad), with a last axis of 3 for colour. Fewer images
        than columns make a shorter row.

    Raises:
        ValueError: where the shape is another, there is no image, a number is not finite, or ``columns`` or ``pad`` is
            too small.
        TypeError: where the images are not a tensor.
    """
    check_tensors("viz.tile", "a batch of images, (N, 1, H, W) or (N, 3, H, W), as a tensor in [-1, 1]", images=images)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(
            f"viz.tile got images of shape {tuple(images.shape)}; give at least one, as (N, 1, H, W) or (N, 3, H, W). "
            "image[None] makes a batch of a single image."
        )
    check_counts("viz.tile", columns=columns)
    check_counts("viz.tile", 0, pad=pad)
    if not bool(images.isfinite().all()):
        raise ValueError("viz.tile got images with NaN or infinity in them; look first at what made them.")
    n, channels, height, width = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + pad) - pad, columns * (width + pad) - pad, channels), SEPARATOR, dtype=np.uint8)
    for k, image in enumerate(to_uint8(images).cpu().permute(0, 2, 3, 1).numpy()):
        top, left = k // columns * (height + pad), k % columns * (width + pad)
        sheet[top : top + height, left : left + width] = image
    return sheet[..., 0] if channels == 1 else sheet


def show_images(
    images: Tensor,
    columns: int = 8,
    title: str | None = None,
    titles: Sequence[str] | None = None,
    inches: float = 0.8,
) -> Figure:
    """Images in a grid, each with its own title where ``titles`` are given.

    Args:
        images: (N, 1, H, W) or (N, 3, H, W), in [-1, 1]; what lies outside is clipped.
        columns: images in a row.
        title: what to see in the grid as a whole.
        titles: N short titles.
        inches: height of one image.

    Raises:
        ValueError: where ``tile`` raises one, or there are not N titles.
        TypeError: where the images are not a tensor.
    """
    pixels = tile(images, columns)
    if titles is not None and len(titles) != len(images):
        raise ValueError(
            f"viz.show_images got {len(images)} images and {len(titles)} titles; give one title for each image, or "
            "title= for all of them."
        )
    if titles is None:
        figure, axes = _figure(title, pixels.shape[1] / pixels.shape[0], math.ceil(len(images) / columns) * inches)
        _image(axes, pixels)
        return figure
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    aspect = images.shape[-1] / images.shape[-2]
    figure = _ShownFigure(figsize=(columns * inches * aspect, rows * (inches + 0.25) + 0.3), layout="constrained")
    if title:
        figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, words in zip(grid, images, titles, strict=False):
        _image(axes, tile(image[None]))
        axes.set_title(words, fontsize="small")
    return figure


def scatter(
    x: Tensor,
    axes: Axes,
    colour: str = "data",
    label: str | None = None,
    title: str | None = None,
) -> Axes:
    """A cloud of points in the plane, with the same scale on both axes.

    Args:
        x: (N, 2).
        axes: where to draw.
        colour: a key of ``COLOURS``.
        label: its name in the legend, which the caller draws.
        title: what to see.

    Raises:
        ValueError: where the shape or the colour is another.
        TypeError: where the points are not a tensor.
    """
    _check_plane("viz.scatter", x)
    points = _numpy(x)
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=6,
        alpha=0.5,
        linewidths=0,
        color=_colour(colour),
        label=label,
        rasterized=True,
    )
    axes.set_aspect("equal")
    if title:
        axes.set_title(title)
    return axes


def field(
    x: Tensor,
    v: Tensor,
    axes: Axes,
    colour: str = "exact",
    label: str | None = None,
    title: str | None = None,
    scale: float | None = None,
) -> Axes:
    """A vector field in the plane: an arrow v at each x.

    Args:
        x: (N, 2), where the arrows start.
        v: (N, 2), what they show.
        axes: where to draw.
        colour: a key of ``COLOURS``.
        label: its name in the legend, which the caller draws.
        title: what to see.
        scale: the length of v that is drawn as one unit of x. Give the same to fields that are compared; where
            None, matplotlib picks one for this field alone.

    Raises:
        ValueError: where a shape or the colour is another.
        TypeError: where points or arrows are not tensors.
    """
    _check_plane("viz.field", x)
    check_tensors("viz.field", "the arrows, (N, 2), as a tensor", v=v)
    if v.shape != x.shape:
        raise ValueError(
            f"viz.field got points x of shape {tuple(x.shape)} and arrows v of shape {tuple(v.shape)}; give one arrow "
            "for each point."
        )
    points, arrows = _numpy(x), _numpy(v)
    axes.quiver(
        *points.T,
        *arrows.T,
        color=_colour(colour),
        label=label,
        angles="xy",
        scale_units="xy" if scale is not None else None,
        scale=scale,
        width=0.004,
    )
    axes.set_aspect("equal")
    if title:
        axes.set_title(title)
    return axes


def histogram_against(
    samples: Tensor,
    x: Tensor,
    density: Tensor,
    axes: Axes,
    colour: str = "learnt",
    label: str = "samples",
    density_label: str = "exact density",
    title: str | None = None,
) -> Axes:
    """A histogram of samples on the line, and a density drawn over it.

    Args:
        samples: (N,). Its bins span the range of ``x``; the histogram's area is the part of the samples inside.
        x: (M,), increasing: where the density is known.
        density: (M,), the density there, in 1 / unit of x.
        axes: where to draw.
        colour: a key of ``COLOURS``, for the samples. The density is drawn as ``exact``.
        label: the samples' name in the legend.
        density_label: the density's.
        title: what to see.

    Raises:
        ValueError: where a shape or the colour is another.
        TypeError: where one of the three is not a tensor.
    """
    check_tensors("viz.histogram_against", "numbers as a tensor of one axis", samples=samples, x=x, density=density)
    if samples.dim() != 1 or x.dim() != 1 or x.shape != density.shape or len(samples) == 0 or len(x) < 2:
        raise ValueError(
            f"viz.histogram_against got samples {tuple(samples.shape)}, x {tuple(x.shape)} and density "
            f"{tuple(density.shape)}; give samples (N,) with N > 0, and x and the density there (M,) with M > 1. "
            "samples[:, 0] takes the first coordinate of points in the plane."
        )
    places, values = _numpy(x), _numpy(samples)
    if not (np.isfinite(places).all() and (np.diff(places) > 0).all()):
        raise ValueError(
            f"viz.histogram_against got an x that goes from {places[0]:.4g} to {places[-1]:.4g} and does not rise all "
            "the way; sort it, and density with it."
        )
    edges = np.linspace(places[0], places[-1], 61)
    weights = np.full(len(values), 1 / (len(values) * (edges[1] - edges[0])))
    axes.hist(values, bins=edges.tolist(), weights=weights, color=_colour(colour), alpha=0.5, label=label)
    axes.plot(places, _numpy(density), color=COLOURS["exact"], linewidth=1.5, label=density_label)
    axes.set_ylabel("density")
    axes.legend(frameon=False)
    if title:
        axes.set_title(title)
    return axes


def png_bytes(pixels: Pixels) -> bytes:
    """Pixels as a PNG file: the same pixels give the same bytes, without a date or a program's name.

    Args:
        pixels: uint8, (H, W) gray or (H, W, 3) colour.

    Raises:
        ValueError: where they are not.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(
            f"viz.png_bytes got pixels of type {pixels.dtype} and shape {pixels.shape}; give uint8 of shape (H, W) or "
            "(H, W, 3). viz.tile makes such pixels from images in [-1, 1]."
        )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def save_png(pixels: Pixels, path: str | os.PathLike[str]) -> Path:
    """Writes a PNG file, whole or not at all: it is written beside its place and then renamed.

    Args:
        pixels: uint8, (H, W) gray or (H, W, 3) colour, as ``tile`` gives.
        path: the file; missing folders are made.

    Returns:
        the path.

    Raises:
        ValueError: where the pixels are of another kind.
        OSError: where it cannot be written; what was there before is untouched.
    """
    write_atomically(path, png_bytes(pixels))
    return Path(path)


class _ShownFigure(Figure):
    """A figure that a notebook shows once, where it is a cell's last line. pyplot would show its own twice."""

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, "Figure")

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def _figure(title: str | None, aspect: float, height: float) -> tuple[Figure, Axes]:
    figure = _ShownFigure(figsize=(height * aspect, height + (0.4 if title else 0.0)), layout="constrained")
    axes = figure.subplots()
    if title:
        axes.set_title(title)
    return figure, axes


def _image(axes: Axes, pixels: Pixels) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()


def _numpy(x: Tensor) -> npt.NDArray[np.float64]:
    return x.detach().cpu().double().numpy()  # in this order: MPS has no float64


def _colour(name: str) -> str:
    if name not in COLOURS:
        raise ValueError(f"viz has no colour {name!r}; give one of the course's: {', '.join(COLOURS)}.")
    return COLOURS[name]


def _check_plane(who: str, x: Tensor) -> None:
    check_tensors(who, "points in the plane, (N, 2), as a tensor", x=x)
    if x.dim() != 2 or x.shape[1] != 2:
        raise ValueError(
            f"{who} got points x of shape {tuple(x.shape)}; give points in the plane, (N, 2). x[:, :2] takes the first "
            "two coordinates of points with more."
        )

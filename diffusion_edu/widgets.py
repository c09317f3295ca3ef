"""Pictures that a slider moves: along time, along steps, along whatever a notebook is about. Used in every notebook.

A ``FrameSlider`` is one object with two faces in one display. Where a kernel runs, the notebook shows ipywidgets: the
slider tells Python, and Python sends the picture. Everywhere else, in the book, in a notebook that is only read, it
shows a player in plain HTML that holds all its frames and asks nothing of the network. Both are worked by keyboard.

The frames lie in one sheet, row by row, F frames in C columns: frame k is in row k // C and column k % C, and the
player shows one cell of the sheet through a window of its size.

    +----+----+----+
    | 0  | 1  | 2  |      C = 3, F = 7
    +----+----+----+
    | 3  | 4  | 5  |
    +----+----+----+
    | 6  |    |    |
    +----+----+----+
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .door import check_counts, is_real
from .trainer import Progress, Trainer
from .viz import Pixels, png_bytes

__all__ = ["MAX_BYTES", "FrameSlider", "LiveFace", "watch"]

MAX_BYTES = 700_000  # of one player's HTML: a notebook's outputs stay under 2 MB, and pages load on a phone
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
V = TypeVar("V")


@dataclass(frozen=True)
class LiveFace:
    """The ipywidgets that a kernel moves. ``slider.value`` is the number of the frame shown."""

    box: Any  # VBox of all of them
    slider: Any  # SelectionSlider
    image: Any  # Image; its value is the frame as PNG
    readout: Any  # Label, such as "t = 0.35"


class FrameSlider:
    """Frames under a slider, live with a kernel and live without one.

    Args:
        frames: F >= 2 pictures of one shape, (H, W) gray or (H, W, 3) colour, uint8; or one array of them. ``viz.tile``
            makes them from images in [-1, 1].
        labels: F texts, the value at each frame: "0.35".
        slug: the player's name in a page, such as "noising-digits": lower-case letters, digits and single hyphens.
            It never changes with the pictures, and no other player of the notebook has it.
        title: what to see. It is also what a screen reader says of the picture.
        value_name: what the slider moves; the reader sees "t = 0.35".
        caption: a sentence or two under the title.
        scale: screen pixels per pixel of the frame, a whole number. Pixels stay sharp.
        grays: gray levels that are kept, 2 to 256, for gray frames. Noise compresses badly: 16 levels halve its size.
        colours: colours that are kept, 2 to 256, for colour frames.
        interval: seconds per frame when playing.

    Attributes:
        frames: the pictures as they are shown, after ``grays`` or ``colours``: uint8, (F, H, W) or (F, H, W, 3).
        labels: what is read at each frame, such as "t = 0.35".

    Raises:
        TypeError: where a frame is not uint8.
        ValueError: where an argument is not of this form, or the player would be larger than ``MAX_BYTES``.
    """

    def __init__(
        self,
        frames: Iterable[Any],
        labels: Sequence[str],
        slug: str,
        *,
        title: str,
        value_name: str = "t",
        caption: str = "",
        scale: int = 1,
        grays: int | None = None,
        colours: int | None = None,
        interval: float = 0.2,
    ) -> None:
        if not isinstance(slug, str) or not SLUG.fullmatch(slug):
            raise ValueError(
                f"FrameSlider got slug={slug!r}; give a name of lower-case letters, digits and single hyphens, such as "
                "noising-digits."
            )
        if not title.strip():
            raise ValueError(f"Slider {slug} got an empty title; give one that says what to see.")
        check_counts(f"Slider {slug}", scale=scale)
        if not is_real(interval) or not 0 < interval < math.inf:
            raise ValueError(f"Slider {slug} got interval={interval!r}; it must be a positive number of seconds.")
        stack = _stack(frames, slug)
        if len(labels) != len(stack):
            raise ValueError(
                f"Slider {slug} got {len(stack)} frames and {len(labels)} labels; give one label for each frame."
            )
        if grays is not None:
            stack = _with_grays(stack, grays, slug)
        if colours is not None:
            stack = _with_colours(stack, colours, slug)
        self.frames = stack
        self.labels = tuple(f"{value_name} = {label}" for label in labels)
        self.slug, self.title, self.value_name, self.caption = slug, title, value_name, caption
        self.scale, self.interval = scale, interval
        size = len(self.html().encode())
        if size > MAX_BYTES:
            raise ValueError(
                f"The player {slug} would take {size / 1e6:.2f} MB of the page, and {MAX_BYTES / 1e6:.1f} MB is the "
                f"most. It has {len(stack)} frames of {stack.shape[1]}x{stack.shape[2]} pixels: take fewer or "
                f"smaller ones, or {'grays=16' if stack.ndim == 3 else 'colours=32'} or less."
            )

    @classmethod
    def from_figures(
        cls,
        draw: Callable[[Axes, V], object],
        values: Sequence[V],
        slug: str,
        *,
        title: str,
        labels: Sequence[str] | None = None,
        size: tuple[float, float] = (5.0, 3.5),
        dpi: int = 100,
        value_name: str = "t",
        caption: str = "",
        colours: int | None = 64,
        interval: float = 0.2,
    ) -> FrameSlider:
        """A figure for each value, under a slider.

        Args:
            draw: draws into fresh axes what belongs to a value. It sets the axes' limits itself, or they jump.
            values: F values, such as times.
            slug: as above.
            title: as above.
            labels: F texts; the values in their short form where None.
            size: width and height of the figure in inches.
            dpi: pixels per inch.
            value_name: as above.
            caption: as above.
            colours: colours kept, 2 to 256, or None for all.
            interval: as above.

        Raises:
            TypeError: where labels are None and a value is not a number.
            ValueError: as above.
        """
        if labels is None:
            labels = [_short(value) for value in values]
        frames = [_rasterised(draw, value, size, dpi) for value in values]
        return cls(
            frames,
            labels,
            slug,
            title=title,
            value_name=value_name,
            caption=caption,
            colours=colours,
            interval=interval,
        )

    def __repr__(self) -> str:
        return f"FrameSlider({self.slug}, {len(self.frames)} frames)"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Both faces, for a notebook to show the one that it can; ``text/plain`` is short and never changes."""
        faces: dict[str, Any] = {"text/plain": repr(self), "text/html": self.html()}
        if self.live is not None:
            bundle = self.live.box._repr_mimebundle_()
            faces[WIDGET_VIEW] = (bundle[0] if isinstance(bundle, tuple) else bundle)[WIDGET_VIEW]
        return {
            mime: face
            for mime, face in faces.items()
            if (include is None or mime in include) and (exclude is None or mime not in exclude)
        }

    # ----------------------------------------------------------------------------------- with a kernel

    @cached_property
    def live(self) -> LiveFace | None:
        """The ipywidgets, made when first asked for; None where ipywidgets is not installed."""
        try:
            import ipywidgets as widgets
            from traitlets import Unicode
        except ImportError:
            return None

        class NamedImage(widgets.Image):
            # The tooltip is what a screen reader says of the picture, and the page shows one only where there is
            # a description to look at, which Image lacks: without it the view fails.
            description = Unicode("").tag(sync=True)

        width = f"{self.frames.shape[2] * self.scale}px"
        slider = widgets.SelectionSlider(
            options=[(label, k) for k, label in enumerate(self.labels)],
            description=self.value_name,
            tooltip=f"{self.value_name}: the arrow keys move it",
            readout=False,
            style={"description_width": "initial"},
            layout=widgets.Layout(flex="1 1 10em", width="auto"),
        )
        readout = widgets.Label(layout=widgets.Layout(flex="0 0 auto", min_width=f"{max(map(len, self.labels))}ch"))
        image = NamedImage(format="png", layout=widgets.Layout(width=width, max_width="100%", align_self="flex-start"))

        def show(_change: object) -> None:
            k = slider.value
            image.value = png_bytes(self._enlarged(k))
            image.tooltip = f"{self.title}: {self.labels[k]}"
            readout.value = self.labels[k]

        show(None)
        slider.observe(show, names="value")
        row = widgets.HBox([slider, readout], layout=widgets.Layout(width=width, min_width="16em", max_width="100%"))
        box = widgets.VBox([widgets.HTML(self._caption()), image, row])
        box.add_class("frame-slider")
        return LiveFace(box, slider, image, readout)

    def _enlarged(self, k: int) -> Pixels:
        return self.frames[k].repeat(self.scale, axis=0).repeat(self.scale, axis=1)

    # -------------------------------------------------------------------------------- without a kernel

    def html(self) -> str:
        """The player: HTML that holds all it needs, with ``slug`` as its element's id. The same each time.

        Without its script, as in a notebook that is not trusted, it shows the first frame and says how to move it.
        """
        return self._html

    @cached_property
    def _html(self) -> str:
        frames, height, width = self.frames.shape[:3]
        columns = max(1, min(frames, round(math.sqrt(frames * height / width))))
        rows = math.ceil(frames / columns)
        sheet = base64.b64encode(_png_sheet(self.frames, rows, columns)).decode()
        script_data = {
            "slug": self.slug,
            "title": self.title,
            "labels": self.labels,
            "columns": columns,
            "interval": round(1000 * self.interval),
        }
        fields = {
            "slug": self.slug,
            "title": html.escape(self.title),
            "caption": self._caption(),
            "first": html.escape(self.labels[0]),
            "name": html.escape(self.value_name),
            "last": str(frames - 1),
            "width": str(width * self.scale),
            "aspect": f"{100 * height / width:.4f}",
            "across": str(100 * columns),
            "down": str(100 * rows),
            "rendering": "pixelated" if self.scale > 1 else "auto",
            "digits": str(max(map(len, self.labels))),
            # `<` is written as an escape, so that no label can end the script
            "data": json.dumps(script_data, ensure_ascii=False).replace("<", "\\u003c"),
            "sheet": sheet,
        }
        return re.sub(r"@(\w+)@", lambda found: fields[found[1]], PLAYER)

    def _caption(self) -> str:
        caption = f"<br>{html.escape(self.caption)}" if self.caption else ""
        return f"<strong>{html.escape(self.title)}</strong>{caption}"


# Colours and fonts are inherited, so that the player can be read on dark pages and on paper. The styles stand in the
# elements because JupyterLab keeps those, and no <style>, in a notebook that is not trusted. There it takes the script
# away too: so the slider starts disabled and the note stands, until the script says otherwise.
PLAYER = """\
<figure class="frame-slider" id="@slug@" role="group" aria-label="@title@" style="margin:0.5em 0;max-width:100%">
<figcaption style="margin:0 0 0.4em;text-align:left">@caption@</figcaption>
<div style="position:relative;overflow:hidden;width:@width@px;max-width:100%">
<div style="padding-top:@aspect@%"></div>
<img alt="@title@: @first@" style="position:absolute;left:0;top:0;width:@across@%;height:@down@%;max-width:none;\
max-height:none;margin:0;padding:0;border:0;border-radius:0;image-rendering:@rendering@" \
src="data:image/png;base64,@sheet@">
</div>
<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0.6em;width:@width@px;min-width:16em;max-width:100%;\
margin-top:0.4em">
<button type="button" hidden style="font:inherit;color:inherit;background:transparent;border:1px solid;\
border-radius:0.3em;padding:0.1em 0.6em;min-width:4.2em;cursor:pointer">Play</button>
<input type="range" min="0" max="@last@" step="1" value="0" disabled autocomplete="off" aria-label="@name@" \
aria-valuetext="@first@" style="flex:1 1 8em;min-width:6em;margin:0">
<output aria-live="off" style="min-width:@digits@ch;font-variant-numeric:tabular-nums">@first@</output>
</div>
<small>The slider moves where scripts run: in the book, and in a notebook that was run or is trusted.</small>
<script>
(() => {
  const { slug, title, labels, columns, interval } = @data@;
  const script = document.currentScript;
  const root = script ? script.closest("figure") : document.getElementById(slug);
  const [image, range, output, button, note] =
    ["img", "input", "output", "button", "small"].map((tag) => root.querySelector(tag));
  const last = labels.length - 1;
  let timer = 0;

  const show = () => {
    const k = range.valueAsNumber;
    image.style.left = `${-100 * (k % columns)}%`;
    image.style.top = `${-100 * Math.floor(k / columns)}%`;
    image.alt = `${title}: ${labels[k]}`;
    range.setAttribute("aria-valuetext", labels[k]);
    output.value = labels[k];
  };
  const pause = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const step = () => {
    if (root.isConnected) range.stepUp();
    if (!root.isConnected || range.valueAsNumber === last) pause();
    show();
  };
  const play = () => {
    if (range.valueAsNumber === last) range.value = 0;
    timer = setInterval(step, interval);
    button.textContent = "Pause";
    show();
  };

  range.addEventListener("input", () => { pause(); show(); });
  button.addEventListener("click", () => (timer ? pause() : play()));
  button.hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;
  range.disabled = false;
  note.remove();
  show();
})();
</script>
</figure>
"""


# ------------------------------------------------------------------------------------------------ frames


def _stack(frames: Iterable[Any], slug: str) -> Pixels:
    """The frames in one array, (F, H, W) or (F, H, W, 3)."""
    arrays = [np.asarray(frame) for frame in frames]
    if len(arrays) < 2:
        raise ValueError(f"Slider {slug} got {len(arrays)} frame(s); give two or more, for it moves between them.")
    for k, array in enumerate(arrays):
        if array.dtype != np.uint8:
            raise TypeError(
                f"Slider {slug} got frame {k} of type {array.dtype}; give uint8, from 0 to 255. viz.tile makes such "
                "frames from images in [-1, 1]."
            )
        if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or array.size == 0:
            raise ValueError(
                f"Slider {slug} got frame {k} of shape {array.shape}; give (H, W) for gray or (H, W, 3) for colour. "
                "viz.tile makes such a frame from a batch of images."
            )
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"Slider {slug} got frame {k} of shape {array.shape} and frame 0 of shape {arrays[0].shape}; give all "
                "frames the same shape."
            )
    return np.stack(arrays)


def _with_grays(stack: Pixels, levels: int, slug: str) -> Pixels:
    """Gray frames with evenly spaced grays, black and white among them."""
    if stack.ndim != 3:
        raise ValueError(f"Slider {slug} got grays={levels} and frames with colour; give colours= instead.")
    _check_kept(slug, grays=levels)
    level = np.round(stack * ((levels - 1) / 255))
    return np.round(level * (255 / (levels - 1))).astype(np.uint8)


def _with_colours(stack: Pixels, colours: int, slug: str) -> Pixels:
    """Colour frames with the colours that serve all of them best, by median cut."""
    if stack.ndim != 4:
        raise ValueError(f"Slider {slug} got colours={colours} and gray frames; give grays= instead.")
    _check_kept(slug, colours=colours)
    picture = Image.fromarray(stack.reshape(-1, *stack.shape[2:]))
    reduced = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.asarray(reduced.convert("RGB")).reshape(stack.shape)


def _check_kept(slug: str, **kept: int) -> None:
    """A whole number of grays or colours that fits into 8 bits."""
    check_counts(f"Slider {slug}", 0, **kept)
    for name, n in kept.items():
        if not 2 <= n <= 256:
            raise ValueError(f"Slider {slug} got {name}={n}; it can keep 2 to 256 of them.")


def _png_sheet(stack: Pixels, rows: int, columns: int) -> bytes:
    """All frames in one PNG, row by row; with a palette where there are few enough colours."""
    height, width = stack.shape[1:3]
    sheet = np.empty((rows * height, columns * width, *stack.shape[3:]), dtype=np.uint8)
    sheet[:] = stack[0, 0, 0]
    for k, frame in enumerate(stack):
        top, left = k // columns * height, k % columns * width
        sheet[top : top + height, left : left + width] = frame
    parts = sheet.astype(np.uint32) @ (1 << 16, 1 << 8, 1) if sheet.ndim == 3 else sheet.astype(np.uint32) * 0x010101
    values, places = np.unique(parts, return_inverse=True)
    if len(values) > (256 if sheet.ndim == 3 else 16):  # 8 bits of gray need no palette
        return png_bytes(sheet)
    picture = Image.fromarray(places.reshape(sheet.shape[:2]).astype(np.uint8), mode="P")
    picture.putpalette(b"".join(int(value).to_bytes(3, "big") for value in values))
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _rasterised(draw: Callable[[Axes, V], object], value: V, size: tuple[float, float], dpi: int) -> Pixels:
    """What ``draw`` draws, (H, W, 3). The figure is matplotlib's own, and no window or notebook hears of it."""
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure.subplots(), value)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _short(value: object) -> str:
    try:
        return f"{float(value):.3g}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(
            f"The slider got the value {value!r}, which is not a number; give labels= to say how values are read."
        ) from None


# --------------------------------------------------------------------------------------- while a model trains


def watch(trainer: Trainer[Any]) -> Iterator[Progress]:
    """Go through a training loop under a bar that shows the step, the loss, the pace and the time left.

    With a kernel and ipywidgets the bar moves. What is stored in the notebook is one sentence, the same on every run.

    Args:
        trainer: the loop; it is trained as this is iterated over.

    Yields:
        the trainer's reports.

    Raises:
        TrainingDivergedError: if the loss is no longer finite.
    """
    from IPython.display import display

    bar = _TrainingBar(trainer.config.steps)
    display(bar)
    for progress in trainer:
        bar.show(progress)
        yield progress


class _TrainingBar:
    """Two faces, as a ``FrameSlider`` has: a moving bar where a kernel runs, and a sentence everywhere else."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        try:
            import ipywidgets as widgets
        except ImportError:
            self.box = None
            return
        self.bar = widgets.FloatProgress(max=steps, layout=widgets.Layout(width="20em"))
        self.text = widgets.Label("the first steps are the slowest ...")
        self.box = widgets.HBox([self.bar, self.text])

    def show(self, progress: Progress) -> None:
        if self.box is not None:
            self.bar.value = progress.step
            left = math.ceil(progress.seconds_left)
            self.text.value = (
                f"step {progress.step} of {progress.steps}   loss {progress.loss:.3f}   "
                f"{progress.images_per_second:.0f} examples/s   {left // 60}:{left % 60:02d} left"
            )

    def __repr__(self) -> str:
        return f"Training, {self.steps} steps"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        faces: dict[str, Any] = {"text/plain": repr(self), "text/html": f"<p>{self!r}</p>"}
        if self.box is not None:
            bundle = self.box._repr_mimebundle_()
            faces[WIDGET_VIEW] = (bundle[0] if isinstance(bundle, tuple) else bundle)[WIDGET_VIEW]
        return faces

r"""Data: toys whose distribution is known exactly, and real pictures.

    x_0 = u / 127.5 - 1,   u in {0, ..., 255}

Notebooks: the digits from ``00_quickstart`` on, the toys from ``01_forward_process``, clothes from ``07_training``.

A toy is the list of a mixture's components, so that ``GaussianMixture(*moons())`` answers every question about it.
Pictures are kept as 8-bit numbers u and become floats x_0 in [-1, 1] only when a batch is drawn: [-1, 1] is what the
noise is scaled for, and what samples are clipped to.

``mnist_5k`` and ``fashion_2k`` come with the package, and ``digits`` with scikit-learn. ``mnist``, ``fashion_mnist``
and ``cifar10`` are looked for in this order, and the first place that has the whole set is taken:

1. the argument ``folder``; if it is given, nowhere else;
2. the set's own folder below the one that the environment variable ``DIFFUSION_EDU_DATA`` names;
3. where Debian's package ``dataset-fashion-mnist`` puts its files;
4. the user's cache, into which pooch fetches a file once and checks its SHA-256. If ``DIFFUSION_EDU_MIRROR`` is set,
   such as to ``https://mirror.example/data``, it replaces the scheme and host in the addresses.

A set is loaded whole or not at all, and nothing that is read is ever run: no pickles.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import tarfile
import urllib.parse
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .door import are_labels, check_counts, is_real, said, unreadable

__all__ = [
    "Components",
    "Data",
    "Fresh",
    "ImageSet",
    "TensorData",
    "cifar10",
    "digits",
    "fashion_2k",
    "fashion_mnist",
    "image_folder",
    "mnist",
    "mnist_5k",
    "moons",
    "read_idx",
    "ring",
    "swiss",
    "to_model_range",
    "to_uint8",
]


class Components(NamedTuple):
    """The components of a Gaussian mixture: ``GaussianMixture(*components)``.

    Args:
        weights: (K,), summing to 1.
        means: (K, D).
        stds: (K,), the same in each direction.
        labels: (K,), the class of each component.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    labels: Tensor


def moons(per_moon: int = 16, std: float = 0.12) -> Components:
    """Two interleaved half-circles, each a chain of small Gaussians; centred, of variance 1 on average. Labels 0 and 1.

    Args:
        per_moon: components along each arc, >= 2.
        std: of each component before the whole is scaled, > 0.
    """
    check_counts("moons", 2, per_moon=per_moon)
    angle = torch.linspace(0, math.pi, per_moon, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    return _standardised(torch.cat([upper, lower]), std, torch.arange(2).repeat_interleave(per_moon))


def swiss(turns: float = 1.5, components: int = 60, std: float = 0.25) -> Components:
    """A spiral, a chain of Gaussians almost evenly spaced along its length; centred, of variance 1 on average. Label 0.

    Args:
        turns: how often it goes round, > 0.
        components: along the spiral, >= 2.
        std: of each component before the whole is scaled, > 0.
    """
    check_counts("swiss", 2, components=components)
    if not is_real(turns) or not 0 < turns < math.inf:
        raise ValueError(f"swiss got turns={turns!r}; it is how often the spiral goes round, a number above 0.")
    start, end = 0.5 * math.pi, (0.5 + 2 * turns) * math.pi
    squared = torch.linspace(start**2, end**2, components, dtype=torch.float64)  # arc length grows like angle^2 / 2
    angle = squared.sqrt()
    return _standardised(
        torch.stack([angle * angle.cos(), angle * angle.sin()], 1), std, torch.zeros(components, dtype=torch.long)
    )


def ring(components: int = 8, std: float = 0.08) -> Components:
    """Gaussians evenly spaced on a circle; centred, of variance 1 on average. Each is a class of its own.

    Args:
        components: on the circle, >= 2.
        std: of each component before the whole is scaled, > 0.
    """
    check_counts("ring", 2, components=components)
    angle = 2 * math.pi * torch.arange(components, dtype=torch.float64) / components
    return _standardised(torch.stack([angle.cos(), angle.sin()], 1), std, torch.arange(components))


def _standardised(means: Tensor, std: float, labels: Tensor) -> Components:
    if not is_real(std) or not 0 < std < math.inf:
        raise ValueError(f"a toy got std={std!r}; it is the width of each component, a number above 0.")
    means = means - means.mean(0)
    scale = torch.sqrt(means.square().mean() + std**2)  # average variance of the two coordinates
    K = len(means)
    weights, stds = torch.full((2, K), 1 / K, dtype=torch.float64)
    return Components(weights, means / scale, stds.fill_(std / float(scale)), labels)


def to_model_range(images: Tensor) -> Tensor:
    """8-bit pictures to float32 in [-1, 1]: x / 127.5 - 1. Any shape.

    Raises:
        TypeError: if the pictures are not uint8; floats in [0, 1] would silently become almost black.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise TypeError(
            f"to_model_range got pictures of type {getattr(images, 'dtype', type(images))}; it takes uint8 from 0 to "
            "255."
        )
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] to 8 bits, rounded to the nearest value; values outside are clipped. Any shape.

    Raises:
        TypeError: if x is not a float tensor.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"to_uint8 got pictures of type {getattr(x, 'dtype', type(x))}; it takes floats in [-1, 1].")
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class ImageSet:
    """Labelled pictures in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        names: what each label is called.

    Raises:
        ValueError: if the pictures are of another shape or type, or the labels are not one whole number for each.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if not isinstance(images, Tensor) or not are_labels(labels):
            raise ValueError(
                f"ImageSet got images = {said(images)} and labels = {said(labels)}; it takes tensors, (N, C, H, W) "
                "uint8 and (N,) whole numbers."
            )
        if images.ndim != 4 or images.dtype != torch.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"ImageSet got images of shape {tuple(images.shape)} and type {images.dtype}, and labels of shape "
                f"{tuple(labels.shape)} and type {labels.dtype}; it takes (N, C, H, W) uint8 and (N,) whole numbers."
            )

    def __len__(self) -> int:
        """N."""
        return len(self.images)

    @property
    def x_0(self) -> Tensor:
        """All pictures as float32 in [-1, 1], (N, C, H, W)."""
        return to_model_range(self.images)


ARCHIVES = {  # pictures that come with the package, and the SHA-256 of their files
    "mnist_5k": "5bbb107bab8a643e44291b0c8f80e647819cd1aeea892e874af0156aa67507ec",
    "fashion_2k": "e3f9e8505423c07cb82cad6019451cf55539bfc54f16dc7b2ad1131814d32cdd",
}


def mnist_5k(split: str = "train") -> ImageSet:
    """5000 real handwritten digits, 28x28, which come with the package (see ``assets/mnist_5k.md``).

    Args:
        split: "train" (4000), "test" (1000), or "all".

    Raises:
        ValueError: for another split.
        RuntimeError: if the file is damaged.
    """
    images, labels = _archive("mnist_5k")
    parts = {"train": slice(0, 4000), "test": slice(4000, 5000), "all": slice(0, 5000)}
    if split not in parts:
        raise ValueError(f"mnist_5k got split={split!r}; it has {', '.join(map(repr, parts))}.")
    return ImageSet(images[parts[split]].clone(), labels[parts[split]].clone(), tuple("0123456789"))


def fashion_2k() -> ImageSet:
    """2000 of the 10,000 test pictures of Fashion-MNIST, 200 of each class, which come with the package (see
    ``assets/fashion_2k.md``): to look at, and to measure samples by, where the whole set is not at hand.

    Raises:
        RuntimeError: if the file is damaged.
    """
    images, labels = _archive("fashion_2k")
    return ImageSet(images.clone(), labels.clone(), _FASHION_MNIST.names)


@lru_cache(maxsize=2)
def _archive(name: str) -> tuple[Tensor, Tensor]:
    raw = resources.files("diffusion_edu").joinpath(f"assets/{name}.npz").read_bytes()
    if hashlib.sha256(raw).hexdigest() != ARCHIVES[name]:
        raise RuntimeError(
            f"the package's file assets/{name}.npz is damaged: its checksum is wrong. Install diffusion_edu again."
        )
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        return torch.from_numpy(archive["images"])[:, None], torch.from_numpy(archive["labels"]).long()


def digits(split: str = "train") -> ImageSet:
    """1797 handwritten digits, 8x8, which come with scikit-learn: the smallest real pictures.

    They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine
    Learning Repository, CC BY 4.0), from 13 writers. They are put in a fixed random order, so the same writers are in
    both parts. The 17 gray values 0 ... 16 are spread evenly over 0 ... 255.

    Args:
        split: "train" (1500), "test" (297), or "all".

    Returns:
        images (N, 1, 8, 8), labels (N,).

    Raises:
        ValueError: for another split.
        ImportError: if scikit-learn is missing.
    """
    parts = {"train": slice(0, 1500), "test": slice(1500, 1797), "all": slice(0, 1797)}
    if split not in parts:
        raise ValueError(f"digits got split={split!r}; it has {', '.join(map(repr, parts))}.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits come with scikit-learn, which is missing. Install it: pip install scikit-learn"
        ) from (error)
    pixels, labels = load_digits(return_X_y=True)
    # Sorted by the SHA-256 of its number, each picture keeps its place on every machine and in every release.
    order = sorted(range(len(pixels)), key=lambda k: hashlib.sha256(str(k).encode()).digest())[parts[split]]
    levels = torch.from_numpy(pixels[order]).long().reshape(-1, 1, 8, 8)
    images = ((255 * levels + 8) // 16).to(torch.uint8)
    return ImageSet(images, torch.from_numpy(labels[order]).long(), tuple("0123456789"))


@dataclass(frozen=True)
class _Source:
    """Where the files of a public set are, and how they are known.

    Args:
        name: of the function that loads it, and of its folder in the cache.
        folders: where its files may be below the user's folder, such as another library's download.
        system: where a system's package puts them.
        url: of the folder that they are fetched from, with a slash at the end.
        sha256: of each file that can be fetched.
        sizes: pictures in each split.
        names: of the classes.
        first: the first labels of each split, which tell sets with equal file names apart.
    """

    name: str
    folders: tuple[str, ...]
    system: tuple[str, ...]
    url: str
    sha256: Mapping[str, str]
    sizes: Mapping[str, int]
    names: tuple[str, ...]
    first: Mapping[str, tuple[int, ...]]


# The checksums are facts about public files. Those of MNIST and CIFAR-10 are in the lists of TensorFlow Datasets. Those
# of Fashion-MNIST were computed from the files themselves, whose MD5 sums are the ones that its README gives.
_MNIST = _Source(
    name="mnist",
    folders=("mnist", "MNIST/raw"),
    system=(),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    sha256={
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    sizes={"train": 60000, "test": 10000},
    names=tuple("0123456789"),
    first={"train": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "test": (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)},
)
_FASHION_MNIST = _Source(
    name="fashion_mnist",
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    system=("/usr/share/datasets/fashion-mnist",),
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
    sha256={
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    sizes={"train": 60000, "test": 10000},
    names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    first={"train": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5), "test": (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)},
)
_CIFAR10 = _Source(
    name="cifar10",
    folders=("cifar10", "cifar-10", "cifar-10-batches-bin"),
    system=(),
    url="https://www.cs.toronto.edu/~kriz/",
    sha256={"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    sizes={"train": 50000, "test": 10000},
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    first={"train": (6, 9, 9, 4, 1, 1, 2, 7, 8, 3), "test": (3, 8, 8, 0, 6, 6, 1, 6, 3, 1)},
)


def mnist(split: str = "train", folder: str | os.PathLike[str] | None = None) -> ImageSet:
    """70,000 handwritten digits, 28x28 (LeCun, Cortes and Burges 1998; CC BY-SA 3.0), in the order of the files.

    Args:
        split: "train" (60,000) or "test" (10,000).
        folder: with the two IDX files of the split, compressed or not, in itself, in ``mnist`` or in ``MNIST/raw``;
            None looks where the module's docstring says.

    Returns:
        images (N, 1, 28, 28), labels (N,).

    Raises:
        ValueError: for another split, or if a file is damaged or is another set's.
        FileNotFoundError: if the folder does not hold the set.
        RuntimeError: if the set could not be fetched; nothing of a broken download is kept.
        ImportError: if the set must be fetched and pooch is missing.
    """
    return _idx_set(_MNIST, split, folder)


def fashion_mnist(split: str = "train", folder: str | os.PathLike[str] | None = None) -> ImageSet:
    """70,000 pictures of clothes, 28x28 (Xiao, Rasul and Vollgraf 2017; MIT licence), in the order of the files.

    Args:
        split: "train" (60,000) or "test" (10,000).
        folder: with the two IDX files of the split, compressed or not, in itself, in ``fashion-mnist``, in
            ``fashion_mnist`` or in ``FashionMNIST/raw``; None looks where the module's docstring says.

    Returns:
        images (N, 1, 28, 28), labels (N,).

    Raises:
        ValueError: for another split, or if a file is damaged or is another set's.
        FileNotFoundError: if the folder does not hold the set.
        RuntimeError: if the set could not be fetched; nothing of a broken download is kept.
        ImportError: if the set must be fetched and pooch is missing.
    """
    return _idx_set(_FASHION_MNIST, split, folder)


def cifar10(split: str = "train", folder: str | os.PathLike[str] | None = None) -> ImageSet:
    """60,000 small colour photographs, 32x32 (Krizhevsky 2009; no licence is stated), in the order of the files.

    Read from the "binary version": a picture is a byte of label, then 3072 bytes: its red, green and blue planes.

    Args:
        split: "train" (50,000) or "test" (10,000).
        folder: with ``cifar-10-binary.tar.gz`` or those of the ``.bin`` files in it that the split needs, in itself,
            in ``cifar10``, ``cifar-10`` or ``cifar-10-batches-bin``; None looks where the module's docstring says.

    Returns:
        images (N, 3, 32, 32), labels (N,).

    Raises:
        ValueError: for another split, or if a file is damaged.
        FileNotFoundError: if the folder does not hold the set.
        RuntimeError: if the set could not be fetched; nothing of a broken download is kept.
        ImportError: if the set must be fetched and pooch is missing.
    """
    N = _size(_CIFAR10, split)
    batches = tuple(f"data_batch_{k}.bin" for k in range(1, 6)) if split == "train" else ("test_batch.bin",)
    (archive,) = _CIFAR10.sha256
    paths = _locate(_CIFAR10, [(archive,), batches], folder)
    record, per_batch = 1 + 3 * 32 * 32, N // len(batches)
    if len(paths) == 1 and paths[0].name == archive:
        members = [f"cifar-10-batches-bin/{name}" for name in batches]
        raw = _tar_members(paths[0], members, per_batch * record)
    else:
        raw = [_whole_file(path, per_batch * record) for path in paths]
    images, labels = torch.empty(N, 3 * 32 * 32, dtype=torch.uint8), torch.empty(N, dtype=torch.long)
    for k, content in enumerate(raw):
        rows = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(per_batch, record)
        here = slice(k * per_batch, (k + 1) * per_batch)
        labels[here], images[here] = rows[:, 0].long(), rows[:, 1:]
    _check_labels(_CIFAR10, split, labels, paths[0])
    return ImageSet(images.reshape(N, 3, 32, 32), labels, _CIFAR10.names)


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """An array of bytes in MNIST's IDX format.

    Two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as four bytes, the most
    significant first, then the numbers, the last index running fastest.

    Args:
        path: of the file; one whose name ends in .gz is decompressed.

    Returns:
        uint8, of the shape that the file gives: one to four dimensions, at most 2^28 numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        PermissionError: if it may not be read.
        ValueError: if it is not one whole array.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            ndim = head[3] if len(head) == 4 else 0
            if head[:3] != b"\0\0\x08" or not 1 <= ndim <= 4:
                raise ValueError(
                    f"{path} begins with the bytes {head.hex(' ') or '(none)'}; an IDX file of bytes begins with "
                    "00 00 08 and the number of dimensions, 01 to 04. Is it another kind of file?"
                )
            sizes = file.read(4 * ndim)
            shape = [int.from_bytes(sizes[k : k + 4], "big") for k in range(0, len(sizes), 4)]
            numbers = math.prod(shape)
            if len(sizes) < 4 * ndim or not 1 <= numbers <= 2**28:
                raise ValueError(
                    f"{path} announces the shape {tuple(shape)} in {ndim} dimensions; wanted 1 to 2^28 numbers. It is "
                    "damaged: copy or fetch it again."
                )
            content = bytearray(file.read(numbers + 1))  # one more than wanted; reaching the end checks a .gz's CRC
    except PermissionError as error:
        raise unreadable(path) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read to its end ({error}); it is damaged: copy or fetch it again."
        ) from error
    if len(content) != numbers:
        found = "more" if len(content) > numbers else str(len(content))
        raise ValueError(
            f"{path} announces {numbers} numbers and holds {found}; it is damaged: copy or fetch it again."
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _size(source: _Source, split: str) -> int:
    if split not in source.sizes:
        raise ValueError(f"{source.name} got split={split!r}; it has {', '.join(map(repr, source.sizes))}.")
    return source.sizes[split]


def _idx_set(source: _Source, split: str, folder: str | os.PathLike[str] | None) -> ImageSet:
    N = _size(source, split)
    prefix = {"train": "train", "test": "t10k"}[split]
    plain = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    paths = _locate(source, [tuple(f"{name}.gz" for name in plain), plain], folder)
    images, labels = map(read_idx, paths)
    for path, array, shape in zip(paths, (images, labels), ((N, 28, 28), (N,)), strict=True):
        if array.shape != shape:
            raise ValueError(
                f"{path} holds an array of shape {tuple(array.shape)}; {source.name}({split!r}) wants {shape}. Is it "
                "another set's file?"
            )
    _check_labels(source, split, labels, paths[1])
    return ImageSet(images[:, None], labels.long(), source.names)


def _check_labels(source: _Source, split: str, labels: Tensor, path: Path) -> None:
    first = source.first[split]
    if int(labels.max()) >= len(source.names) or tuple(labels[: len(first)].tolist()) != first:
        raise ValueError(
            f"{path} has labels up to {int(labels.max())} that begin {labels[: len(first)].tolist()}; those of "
            f"{source.name}({split!r}) go up to {len(source.names) - 1} and begin {list(first)}. Is it another set's "
            "file?"
        )


def _locate(source: _Source, layouts: Sequence[tuple[str, ...]], folder: str | os.PathLike[str] | None) -> list[Path]:
    """The files of a set: those of the first layout that some place has whole; else the first layout, fetched."""
    places = [Path(place) for place in source.system]
    if folder is not None:
        places = [Path(folder), *(Path(folder) / name for name in source.folders)]
    elif root := os.environ.get("DIFFUSION_EDU_DATA"):
        if not Path(root).is_dir():
            raise FileNotFoundError(
                f"DIFFUSION_EDU_DATA is {root!r}, which is not a folder; name the one with your data sets, or unset it."
            )
        places = [*(Path(root) / name for name in source.folders), *places]
    for place in places:
        for layout in layouts:
            if all((place / name).is_file() for name in layout):
                return [place / name for name in layout]
    if folder is not None:
        wanted = ", or ".join(" and ".join(layout) for layout in layouts)
        raise FileNotFoundError(
            f"{source.name} found no whole set in {folder}; wanted {wanted}, there or in {' or '.join(source.folders)} "
            "below it. Put them there, or leave out `folder` to fetch them."
        )
    return [_fetch(source, name) for name in layouts[0]]


def _fetch(source: _Source, name: str) -> Path:
    """The file in the user's cache, fetched if it is not there or its checksum is wrong."""
    way_out = f"Or get {name} in another way and give its folder: {source.name}(folder=...)."
    url = source.url + name
    if mirror := os.environ.get("DIFFUSION_EDU_MIRROR"):
        if urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
            raise ValueError(
                f"DIFFUSION_EDU_MIRROR is {mirror!r}; it takes an address that begins with http:// or https://. For a "
                "folder on this machine use DIFFUSION_EDU_DATA."
            )
        url = mirror.rstrip("/") + urllib.parse.urlsplit(url).path
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"{source.name} has to be fetched, and pooch is missing. Install it: pip install pooch. {way_out}"
        ) from error
    cache = Path(pooch.os_cache("diffusion_edu")) / source.name
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{source.sha256[name]}",
                fname=name,
                path=cache,
                downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=30),
            )
        )
    except (OSError, ValueError) as error:
        if (response := getattr(error, "response", None)) is not None:
            response.close()  # an answer such as 404 still holds its connection
        raise RuntimeError(
            f"{source.name} could not fetch {url} whole into {cache} ({error}). Check the network, and try again; a "
            f"mirror's address can be put in DIFFUSION_EDU_MIRROR. {way_out}"
        ) from error


def _whole_file(path: Path, size: int) -> bytes:
    """A file that must have exactly this many bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(size + 1)
    except PermissionError as error:
        raise unreadable(path) from error
    if len(content) != size:
        found = "more" if len(content) > size else len(content)
        raise ValueError(f"{path} holds {found} bytes, wanted {size}; it is damaged: copy or fetch it again.")
    return content


class _Bounded(gzip.GzipFile):
    """A .gz file that refuses to be read beyond ``left`` bytes, or beyond 2^30 in all: an archive may claim any size,
    even for a header."""

    MOST, HEADER = 2**30, 2**20
    left = HEADER

    def read(self, size: int | None = -1) -> bytes:
        """Read ``size`` bytes, at most ``left`` of them, and lower ``left`` by as many."""
        if size is None or not 0 <= size <= self.left or self.tell() > self.MOST:
            raise OSError(f"it asks for {size} bytes where {self.left} are due, or for more than {self.MOST} in all")
        self.left -= size
        return super().read(size)


def _tar_members(path: Path, wanted: Sequence[str], size: int) -> list[bytes]:
    """The named plain files of a .tar.gz, each of exactly this many bytes, in memory: nothing goes to the disk."""
    contents: dict[str, bytes] = {}
    try:
        with _Bounded(path) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            for member in archive:
                if member.size > size:
                    raise ValueError(
                        f"{path} holds {member.name} of {member.size} bytes; no file in it is above {size}."
                    )
                if member.name in wanted and member.isfile() and (file := archive.extractfile(member)):
                    raw.left = size
                    contents[member.name] = file.read(size + 1)
                raw.left = raw.HEADER
            raw.left = raw.MOST
            while raw.read(2**20):  # reading to the end checks the CRC of the whole
                pass
    except PermissionError as error:
        raise unreadable(path) from error
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(
            f"{path} cannot be read to its end ({error}); it is damaged: copy or fetch it again."
        ) from error
    for name in wanted:
        found = len(contents.get(name, b""))
        if found != size:
            raise ValueError(f"{path} holds {found} bytes of {name}, wanted {size}; copy or fetch it again.")
    return [contents[name] for name in wanted]


def image_folder(folder: str | os.PathLike[str], side: int, channels: int = 3) -> ImageSet:
    """Your own pictures: the PNG and JPEG files of a folder, each a square of one size.

    Either all files are in the folder itself, one class, or each class has a subfolder of its own. Classes and files
    are in the order of their names; names that begin with a dot, and files of other kinds, are skipped. A picture is
    turned upright as its EXIF data say, laid on white where it is transparent, cut to its central square and scaled to
    ``side`` with Lanczos's filter, which averages as it shrinks. (Smaller pictures are enlarged.)

    Args:
        folder: of the pictures or of the classes.
        side: in pixels, 1 to 1024.
        channels: 1 for gray, 3 for colour.

    Returns:
        images (N, channels, side, side), labels (N,), and the subfolders' names, or the folder's own.

    Raises:
        ValueError: for another side or number of channels; if a file cannot be read whole, has more than 2^26 pixels
            or 8 bits a channel, or is larger than 64 MiB; if pictures lie beside subfolders, or the folder or a
            subfolder has none; if the whole would take more than 4 GiB.
        FileNotFoundError: if there is no such folder.
        ImportError: if Pillow is missing.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"image_folder got {root}, which is not a folder; check the path.")
    check_counts("image_folder", side=side)
    if not side <= 1024 or channels not in (1, 3):
        raise ValueError(
            f"image_folder got side={side} and channels={channels}; give a side of 1 to 1024, 1 or 3 channels."
        )
    classes = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    classes.sort(key=lambda entry: entry.name)  # paths themselves are sorted differently on Windows
    beside = _pictures(root)
    if beside and classes:
        raise ValueError(
            f"image_folder found {beside[0].name} beside the subfolder {classes[0].name} in {root}; put all pictures "
            "in the folder itself, or each in its class's subfolder."
        )
    groups = {entry.name: _pictures(entry) for entry in classes} or {root.resolve().name: beside}
    empty = [name for name, files in groups.items() if not files]
    if empty:
        raise ValueError(
            f"image_folder found no .png, .jpg or .jpeg file in {empty[0]} (in {root}); put some there, or remove it."
        )
    paths = [path for files in groups.values() for path in files]
    if len(paths) * channels * side**2 > 2**32:
        raise ValueError(
            f"image_folder got {len(paths)} pictures of {channels} x {side} x {side} bytes, more than 4 GiB; choose a "
            "smaller side."
        )
    images = torch.empty(len(paths), side, side, channels, dtype=torch.uint8)
    for k, path in enumerate(paths):
        images[k] = _picture(path, side, channels)
    labels = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(files) for files in groups.values()]))
    return ImageSet(images.permute(0, 3, 1, 2).contiguous(), labels, tuple(groups))


def _pictures(folder: Path) -> list[Path]:
    kinds = (".png", ".jpg", ".jpeg")
    files = (path for path in folder.iterdir() if path.suffix.lower() in kinds and not path.name.startswith("."))
    return sorted((path for path in files if path.is_file()), key=lambda path: path.name)


def _picture(path: Path, side: int, channels: int) -> Tensor:
    """One file as (side, side, channels) uint8."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("image_folder needs Pillow, which is missing. Install it: pip install pillow") from error
    try:
        if path.stat().st_size > 2**26:
            raise ValueError("it has more than 64 MiB")
        raw = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > 2**26:
                    raise ValueError(f"it has {image.width} x {image.height} pixels, more than 2^26")
                deep = image.format == "PNG" and raw[24] > 8  # Pillow cuts colours of 16 bits to 8
                if deep or image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                    raise ValueError(f"its pixels are of kind {image.mode}, not 8 bits a channel")
                upright = ImageOps.exif_transpose(image)
                if upright.has_transparency_data:
                    colour = upright.convert("RGBA")
                    upright = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
                square = min(upright.size)
                left, top = (upright.width - square) // 2, (upright.height - square) // 2
                upright = upright.convert("L" if channels == 1 else "RGB")
                # Cut first: a filter that is only told the square looks at the pixels around it too.
                small = upright.crop((left, top, left + square, top + square)).resize(
                    (side, side), Image.Resampling.LANCZOS
                )
                return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(side, side, channels)
    except PermissionError as error:
        raise unreadable(path) from error
    except (OSError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image_folder cannot use {path} ({error}); it takes whole PNG and JPEG files. Repair it or take it away."
        ) from error


class Data(Protocol):
    """What the trainer draws from."""

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """The training batch of a step: always the same for the same step, so that a resumed run sees what an
        uninterrupted one sees.

        Args:
            step: from 0.
            size: B, examples wanted.

        Returns:
            x_0 (B, ...) as floats, and labels (B,) or None.
        """
        ...


@dataclass(frozen=True)
class TensorData:
    """A finite data set, shuffled anew in each epoch.

    Args:
        x: (N, ...) floats, or uint8 pictures, which become floats in [-1, 1] batch by batch.
        labels: (N,) integers, or None.
        seed: of the shuffling.

    Raises:
        ValueError: if the set is empty or has no dimension beside N, the labels are not one whole number for each
            example or are on another device, floats are not finite, or the seed is not a whole number from 0 up.
        TypeError: if x is not a tensor of floats or of uint8.
    """

    x: Tensor
    labels: Tensor | None = None
    seed: int = 0
    _orders: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts("TensorData", 0, seed=self.seed)
        if not isinstance(self.x, Tensor) or not (self.x.is_floating_point() or self.x.dtype == torch.uint8):
            raise TypeError(f"TensorData got x = {said(self.x)}; give a tensor of floats, or of uint8 pictures.")
        fit = self.labels is None or (are_labels(self.labels) and self.labels.device == self.x.device)
        if self.x.ndim < 2 or self.x.is_meta or not fit:
            raise ValueError(
                f"TensorData got x = {said(self.x)} and labels = {said(self.labels)}; give examples (N, ...), not on "
                "the meta device, and on the same device labels (N,) of whole numbers, or None."
            )
        if len(self.x) == 0 or (self.labels is not None and self.labels.shape != self.x.shape[:1]):
            shape = None if self.labels is None else tuple(self.labels.shape)
            raise ValueError(
                f"TensorData got x of shape {tuple(self.x.shape)} and labels of shape {shape}; give N >= 1 "
                "examples, one label each."
            )
        if self.x.is_floating_point() and not bool(torch.isfinite(self.x).all()):
            raise ValueError(
                "TensorData got NaN or infinite numbers; clean the data first, one of them spoils every weight."
            )

    @classmethod
    def of(cls, images: ImageSet, seed: int = 0) -> TensorData:
        """The pictures (N, C, H, W) and labels (N,) of an ``ImageSet``.

        Raises:
            TypeError: if it is another thing.
        """
        if not isinstance(images, ImageSet):
            raise TypeError(f"TensorData.of got {said(images)}; it takes an ImageSet, such as mnist_5k().")
        return cls(images.images, images.labels, seed)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """Examples step * size ... (step + 1) * size - 1 of the endless shuffled stream.

        Returns:
            (size, ...) floats, and labels (size,) or None.
        """
        check_counts("TensorData.batch", size=size)
        check_counts("TensorData.batch", 0, step=step)
        N = len(self.x)
        place = torch.arange(step * size, (step + 1) * size, device="cpu")
        epochs = place // N
        first, last = int(epochs[0]), int(epochs[-1])
        order = torch.cat([self._order(epoch) for epoch in range(first, last + 1)])
        index = order[place - first * N].to(self.x.device)
        x_0 = self.x[index].detach()  # the encoder of latents, say, is not trained here
        return (to_model_range(x_0) if x_0.dtype == torch.uint8 else x_0), (
            None if self.labels is None else self.labels[index]
        )

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            for old in [e for e in self._orders if e < epoch - 1]:
                del self._orders[old]
            self._orders[epoch] = torch.randperm(len(self.x), generator=seeded(self.seed, epoch), device="cpu")
        return self._orders[epoch]


@dataclass(frozen=True)
class Fresh:
    """Endless data from a known distribution, new draws in each batch: nothing to over-fit.

    The key of a step's draws is not the key of the same step's times and noise in the trainer: with one key, data
    and noise would be one stream, and a network that reads the noise off the data beats every true denoiser.

    Args:
        draw: (n, generator) -> (n, D) or ((n, D), labels (n,)), for example ``GaussianMixture(...).sample``.
        seed: of the draws, >= 0.

    Raises:
        ValueError: if the seed is not a whole number from 0 up.
        TypeError: if ``draw`` is not a function.
    """

    draw: Callable[[int, torch.Generator], Tensor | tuple[Tensor, Tensor]]
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts("Fresh", 0, seed=self.seed)
        if not callable(self.draw):
            raise TypeError(
                f"Fresh got draw = {said(self.draw)}; give a function (n, generator) -> (n, D), or TensorData."
            )

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """New draws, the same for the same step: (size, D), and labels (size,) or None.

        Raises:
            ValueError: if what was drawn is not ``size`` examples, or its labels are not whole numbers, one each.
        """
        check_counts("Fresh.batch", size=size)
        check_counts("Fresh.batch", 0, step=step)
        drawn = self.draw(size, seeded(self.seed, step, 1))
        x_0, labels = drawn if isinstance(drawn, tuple) and len(drawn) == 2 else (drawn, None)
        fit = labels is None or (are_labels(labels) and labels.shape == (size,))
        if not isinstance(x_0, Tensor) or x_0.shape[:1] != (size,) or not fit:
            raise ValueError(
                f"Fresh asked its draw for {size} examples and got {said(x_0)}, with labels {said(labels)}; it must "
                "return x (n, D), or a tuple of x and labels (n,)."
            )
        x_0 = x_0.detach()  # as in TensorData
        return (to_model_range(x_0) if x_0.dtype == torch.uint8 else x_0.float()), labels


def seed_of(*key: int) -> int:
    """One seed, below 2^63, that depends on every number of the key, each >= 0; zeros at its end do not count."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on every number of the key, each >= 0."""
    return torch.Generator().manual_seed(seed_of(*key))


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """In this block PyTorch's global CPU generator starts from a seed; afterwards it is as it was before.

    Those of GPUs, which ``torch.manual_seed`` would reset as well, are left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

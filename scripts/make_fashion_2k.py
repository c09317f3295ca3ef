"""Make the shipped pictures ``diffusion_edu/assets/fashion_2k.npz`` from Fashion-MNIST's test set.

    python -m scripts.make_fashion_2k

The first 200 test pictures of each class, in a fixed random order, so that any first n of them are a fair sample. They
are there to be looked at and to measure samples by: nothing in this course was trained on them. The result is the same
byte for byte on every run, and ``diffusion_edu.data`` holds its SHA-256.
"""

import torch

from diffusion_edu.data import fashion_mnist, seeded
from scripts.make_mnist_5k import ASSETS, write

EACH = 200


def main() -> None:
    """Make the file and print its checksum."""
    test = fashion_mnist("test")
    chosen = torch.cat([(test.labels == k).nonzero()[:EACH, 0] for k in range(len(test.names))])
    chosen = chosen[torch.randperm(len(chosen), generator=seeded(0))]
    write(ASSETS / "fashion_2k.npz", test.images[chosen, 0].numpy(), test.labels[chosen].numpy())


if __name__ == "__main__":
    main()

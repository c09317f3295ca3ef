"""Data: sets are whole or refused, whatever is wrong with their files; ranges are right; batches repeat."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from importlib import resources
from pathlib import Path

import pooch
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    CosineSchedule,
    DiffusionModel,
    Fresh,
    GaussianMixture,
    ImageSet,
    ResidualMLP,
    TensorData,
    TrainConfig,
    Trainer,
    V,
    agreement,
    fashion_2k,
    fashion_classifier,
    mnist_5k,
    moons,
    predict,
    to_model_range,
    to_uint8,
)
from diffusion_edu import data as data_module
from diffusion_edu.data import cifar10, digits, fashion_mnist, global_seed, image_folder, mnist, read_idx, seeded


def test_the_digits_are_5000_pictures_500_of_each_with_a_test_set_of_1000():
    train, test, everything = mnist_5k("train"), mnist_5k("test"), mnist_5k("all")
    assert train.images.shape == (4000, 1, 28, 28) and test.images.shape == (1000, 1, 28, 28)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert torch.bincount(everything.labels).tolist() == [500] * 10
    assert torch.bincount(test.labels).min() > 80
    assert train.x_0.min() == -1 and train.x_0.max() == 1 and len(train) == 4000
    both = {picture.numpy().tobytes() for picture in train.images} & {p.numpy().tobytes() for p in test.images}
    assert not both
    with pytest.raises(ValueError, match="'train', 'test', 'all'"):
        mnist_5k("valid")


def test_changing_a_returned_picture_does_not_change_the_next_ones():
    mnist_5k().images.zero_()
    assert mnist_5k().images.float().mean() > 10


@pytest.mark.parametrize(("name", "load"), [("mnist_5k", mnist_5k), ("fashion_2k", fashion_2k)])
def test_a_damaged_file_gets_a_sentence(name, load, monkeypatch):
    raw = resources.files("diffusion_edu").joinpath(f"assets/{name}.npz").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == data_module.ARCHIVES[name]
    monkeypatch.setitem(data_module.ARCHIVES, name, "0" * 64)
    data_module._archive.cache_clear()
    with pytest.raises(RuntimeError, match=f"{name}.npz is damaged"):
        load()


def test_the_shipped_clothes_are_2000_different_ones_200_of_each_in_no_order():
    found = fashion_2k()
    assert found.images.shape == (2000, 1, 28, 28) and found.images.dtype == torch.uint8
    assert torch.bincount(found.labels).tolist() == [200] * 10 and found.names[9] == "Ankle boot"
    assert len({picture.numpy().tobytes() for picture in found.images}) > 1990
    assert torch.bincount(found.labels[:500]).min() > 30, "any first n are a fair sample"
    found.images.zero_()
    assert fashion_2k().images.float().mean() > 10
    seen = predict(fashion_classifier(), fashion_2k().x_0[:500])[1]
    assert agreement(seen, fashion_2k().labels[:500]) > 0.85, "pictures and labels belong together"


def test_the_model_range_is_minus_1_to_1_and_back_is_exact_for_all_256_values():
    values = torch.arange(256, dtype=torch.uint8)
    x = to_model_range(values)
    assert x[0] == -1 and x[255] == 1 and torch.equal(to_uint8(x), values)
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]
    with pytest.raises(TypeError, match="uint8"):
        to_model_range(torch.rand(3))
    with pytest.raises(TypeError, match="floats"):
        to_uint8(values)


def test_an_epoch_shows_each_example_once_and_the_next_in_another_order():
    data = TensorData(torch.arange(10.0)[:, None], torch.arange(10))
    epochs = [torch.cat([data.batch(5 * e + k, 2)[0][:, 0] for k in range(5)]) for e in range(2)]
    assert [sorted(e.tolist()) for e in epochs] == [list(range(10))] * 2
    assert not torch.equal(*epochs)
    x, labels = data.batch(3, 4)  # across the border of two epochs, and labels stay with their examples
    assert torch.equal(x[:, 0].long(), labels)


def test_batches_larger_than_the_set_are_whole_epochs():
    x, _ = TensorData(torch.arange(3.0)[:, None]).batch(0, 9)
    assert torch.bincount(x[:, 0].long()).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    "make",
    [lambda: TensorData(torch.arange(50.0)[:, None], seed=3), lambda: Fresh(GaussianMixture(*moons()).sample, 3)],
)
def test_the_batch_of_a_step_is_the_same_whenever_it_is_asked_for(make):
    straight = make()
    for step in range(20):
        straight.batch(step, 7)
    assert torch.equal(straight.batch(11, 7)[0], make().batch(11, 7)[0])
    assert not torch.equal(straight.batch(11, 7)[0], straight.batch(12, 7)[0])


def test_pictures_become_floats_in_the_model_range_batch_by_batch():
    x, labels = TensorData.of(mnist_5k("test")).batch(0, 5)
    assert x.dtype == torch.float32 and x.min() == -1 and labels.shape == (5,)


def test_labels_come_along_with_fresh_draws():
    mixture = GaussianMixture(*moons())
    x, labels = Fresh(mixture.sample_with_components).batch(0, 6)
    assert x.shape == (6, 2) and x.dtype == torch.float32 and labels.shape == (6,)


def test_fresh_data_of_a_step_and_the_trainers_noise_of_that_step_are_independent():
    """Found by training on moons below the least loss possible: both came from one generator's first numbers."""
    fresh = Fresh(lambda n, generator: torch.randn(n, 2, generator=generator), seed=0)
    data = torch.cat([fresh.batch(step, 16)[0] for step in range(200)]).flatten()
    noise = torch.cat([torch.randn(16, 2, generator=seeded(0, step)) for step in range(200)]).flatten()
    assert abs(torch.corrcoef(torch.stack([data, noise]))[0, 1]) < 4 / len(data) ** 0.5


@pytest.mark.parametrize(
    "x, labels",
    [(torch.zeros(0, 2), None), (torch.zeros(3, 2), torch.zeros(2)), (torch.tensor([[float("inf")]]), None)],
)
def test_impossible_data_gets_a_sentence(x, labels):
    with pytest.raises(ValueError, match="TensorData got"):
        TensorData(x, labels)


def test_moons_are_two_classes_of_equal_weight():
    toy = moons()
    assert_close(toy.weights.sum().item(), 1.0)
    assert torch.bincount(toy.labels).tolist() == [16, 16]


# The 8x8 digits.


def test_the_8x8_digits_are_1797_different_pictures_of_which_297_are_held_out():
    train, test, everything = digits("train"), digits("test"), digits("all")
    assert train.images.shape == (1500, 1, 8, 8) and test.images.shape == (297, 1, 8, 8)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert len({picture.numpy().tobytes() for picture in everything.images}) == 1797
    assert torch.equal(torch.cat([train.images, test.images]), everything.images)
    assert torch.bincount(test.labels, minlength=10).min() > 15 and everything.names == tuple("0123456789")
    with pytest.raises(ValueError, match="'train', 'test', 'all'"):
        digits("valid")


def test_the_8x8_digits_are_scikit_learns_with_0_to_16_spread_over_0_to_255():
    from sklearn.datasets import load_digits

    original = load_digits()
    ours = digits("all")
    by_pixels = {
        p.astype("uint8").tobytes(): int(label) for p, label in zip(original.data, original.target, strict=True)
    }
    levels = (ours.images.double() * 16 / 255).round().to(torch.uint8)
    assert all(by_pixels[p.numpy().tobytes()] == label for p, label in zip(levels, ours.labels.tolist(), strict=True))
    assert ours.images.unique().tolist() == [round(255 * v / 16 + 1e-9) for v in range(17)]


def test_the_order_of_the_8x8_digits_is_fixed_for_good():
    assert digits("train").labels[:12].tolist() == [0, 4, 0, 7, 5, 5, 5, 7, 9, 7, 0, 6]


def test_importing_the_package_loads_neither_scikit_learn_nor_pooch_nor_pillow():
    probe = "import sys, diffusion_edu.data; print({'sklearn', 'pooch', 'requests', 'PIL'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("set()", "")


@pytest.mark.parametrize(
    "module, load",
    [
        ("sklearn.datasets", lambda folder: digits()),
        ("PIL", lambda folder: image_folder(folder, 4)),
        ("pooch", lambda folder: fashion_mnist()),
    ],
)
def test_a_missing_library_gets_a_sentence_that_says_what_to_install(module, load, tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(data_module, "_FASHION_MNIST", dataclasses.replace(data_module._FASHION_MNIST, system=()))
    monkeypatch.delenv("DIFFUSION_EDU_DATA", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"missing\. Install it: pip install (scikit-learn|pillow|pooch)"):
        load(tmp_path)


# IDX files.


def idx(array):
    """A uint8 tensor as an IDX file."""
    return (
        b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + bytes(array.flatten())
    )


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 1, 3, 2)])
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_an_array_written_as_idx_is_read_back(shape, name, tmp_path, generator):
    array = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    assert torch.equal(read_idx(tmp_path / name), array)


WHOLE = idx(torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "begins with the bytes"),
        (b"\0\0", "begins with the bytes"),
        (b"\x89PNG" + WHOLE, "begins with the bytes 89 50 4e 47"),
        (b"\0\0\x0d\x03" + WHOLE[4:], "begins with the bytes"),  # floats
        (b"\0\0\x08\0" + WHOLE[4:], "begins with the bytes"),
        (b"\0\0\x08\x09" + WHOLE[4:], "begins with the bytes"),
        (WHOLE[:10], "announces the shape"),
        (b"\0\0\x08\x02" + b"\xff" * 8 + WHOLE, "announces the shape"),  # 2^64 numbers, of which none is allocated
        (b"\0\0\x08\x01" + b"\0" * 4, "announces the shape"),
        (WHOLE[:-1], "announces 24 numbers and holds 23"),
        (WHOLE[:16], "announces 24 numbers and holds 0"),
        (WHOLE + b"\0", "announces 24 numbers and holds more"),
    ],
)
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_a_malformed_idx_file_gets_a_sentence_that_names_it(content, why, name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ValueError, match=rf"(?s)x.* {why}"):
        read_idx(tmp_path / name)


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "bad checksum"])
def test_a_damaged_gz_file_gets_a_sentence_that_names_it(damage, tmp_path, generator):
    packed = bytearray(gzip.compress(idx(torch.randint(256, (50, 40), generator=generator, dtype=torch.uint8))))
    if damage == "cut":
        packed = packed[:-20]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    elif damage == "bad checksum":
        packed[-6] ^= 1
    else:
        packed = bytearray(WHOLE)
    (tmp_path / "x.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"x\.gz cannot be read to its end .*damaged"):
        read_idx(tmp_path / "x.gz")


def test_an_idx_file_that_is_not_there_gets_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_idx(tmp_path / "x")


# Fashion-MNIST in small: the same files, fewer pictures.

SIZES = {"train": 30, "test": 20}
PREFIX = {"train": "train", "test": "t10k"}


@pytest.fixture
def little_fashion(monkeypatch, tmp_path):
    """Fashion-MNIST with 30 + 20 pictures: (files by name, the true pictures, the true labels)."""
    true = data_module._FASHION_MNIST
    generator = torch.Generator().manual_seed(1)
    files, images, labels = {}, {}, {}
    for split, n in SIZES.items():
        images[split] = torch.randint(256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        first = torch.tensor(true.first[split])
        rest = torch.randint(10, (n - len(first),), generator=generator)
        labels[split] = torch.cat([first, rest])
        files[f"{PREFIX[split]}-images-idx3-ubyte.gz"] = gzip.compress(idx(images[split]))
        files[f"{PREFIX[split]}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels[split].to(torch.uint8)))
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    little = dataclasses.replace(true, sizes=SIZES, sha256=sha256, system=(str(tmp_path / "no-such-place"),))
    monkeypatch.setattr(data_module, "_FASHION_MNIST", little)
    monkeypatch.delenv("DIFFUSION_EDU_DATA", raising=False)
    monkeypatch.delenv("DIFFUSION_EDU_MIRROR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return files, images, labels


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def unpacked(files):
    return {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}


@pytest.mark.parametrize("pack", [dict, unpacked], ids=["packed", "unpacked"])
@pytest.mark.parametrize("where", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_a_set_is_found_in_the_users_folder_packed_or_not(where, pack, little_fashion, tmp_path):
    files, images, labels = little_fashion
    put(tmp_path / "mine" / where, pack(files))
    for split in SIZES:
        found = fashion_mnist(split, tmp_path / "mine")
        assert torch.equal(found.images[:, 0], images[split]) and torch.equal(found.labels, labels[split])
        assert found.images.dtype == torch.uint8 and found.labels.dtype == torch.int64
        assert len(found.names) == 10 and found.names[9] == "Ankle boot"


def test_a_set_is_found_below_the_folder_of_the_environment_variable(little_fashion, tmp_path, monkeypatch):
    files, images, _ = little_fashion
    put(tmp_path / "sets" / "fashion-mnist", files)
    monkeypatch.setenv("DIFFUSION_EDU_DATA", str(tmp_path / "sets"))
    assert torch.equal(fashion_mnist("test").images[:, 0], images["test"])
    monkeypatch.setenv("DIFFUSION_EDU_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"DIFFUSION_EDU_DATA is .*not a folder"):
        fashion_mnist("test")


def test_a_set_is_found_where_debian_puts_it(little_fashion, tmp_path):
    assert data_module._FASHION_MNIST.system == (str(tmp_path / "no-such-place"),)
    files, images, _ = little_fashion
    put(tmp_path / "no-such-place", files)
    assert torch.equal(fashion_mnist().images[:, 0], images["train"])


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_debians_fashion_mnist_is_read_whole():
    train, test = fashion_mnist("train"), fashion_mnist("test")
    there = {picture.numpy().tobytes() for picture in test.images}
    assert all(picture.numpy().tobytes() in there for picture in fashion_2k().images), "fashion_2k is a part of it"
    assert torch.bincount(train.labels).tolist() == [6000] * 10 and torch.bincount(test.labels).tolist() == [1000] * 10
    assert_close(float(train.images.double().mean() / 255), 0.2860, atol=1e-4, rtol=0)
    assert_close(float(train.images.double().std() / 255), 0.3530, atol=1e-4, rtol=0)


@pytest.mark.parametrize("gone", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_half_a_set_in_the_users_folder_is_no_set(gone, little_fashion, tmp_path):
    put(tmp_path / "mine", {name: content for name, content in little_fashion[0].items() if name != gone})
    with pytest.raises(FileNotFoundError, match=r"no whole set in .*wanted train-images.* and train-labels"):
        fashion_mnist("train", tmp_path / "mine")
    assert len(fashion_mnist("test", tmp_path / "mine")) == 20


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_a_cut_file_gives_a_sentence_and_never_a_part_of_the_set(name, little_fashion, tmp_path):
    files = little_fashion[0]
    put(tmp_path / "mine", {**files, name: files[name][:-12]})
    with pytest.raises(ValueError, match=f"{name} cannot be read to its end"):
        fashion_mnist("train", tmp_path / "mine")


def test_a_file_of_the_wrong_number_of_pictures_gives_a_sentence(little_fashion, tmp_path):
    files, images, labels = little_fashion
    put(tmp_path / "a", {**files, "t10k-images-idx3-ubyte.gz": gzip.compress(idx(images["test"][:19]))})
    put(tmp_path / "b", {**files, "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels["test"][:19].byte()))})
    for folder in ("a", "b"):
        with pytest.raises(ValueError, match=r"holds an array of shape \(19.*another set's file"):
            fashion_mnist("test", tmp_path / folder)


def test_labels_that_cannot_be_are_refused(little_fashion, tmp_path):
    files, _, labels = little_fashion
    labels["test"][-1] = 10
    put(tmp_path / "mine", {**files, "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels["test"].byte()))})
    with pytest.raises(ValueError, match="labels up to 10"):
        fashion_mnist("test", tmp_path / "mine")


def test_clothes_are_not_taken_for_digits_though_their_files_have_the_same_names(little_fashion, tmp_path, monkeypatch):
    monkeypatch.setattr(data_module, "_MNIST", dataclasses.replace(data_module._MNIST, sizes=SIZES))
    put(tmp_path / "mine", little_fashion[0])
    with pytest.raises(
        ValueError, match=r"begin \[9, 0, 0, 3, .*mnist\('train'\) .*begin \[5, 0, 4, 1, .*another set's"
    ):
        mnist("train", tmp_path / "mine")


@pytest.mark.parametrize("load", [mnist, fashion_mnist, cifar10])
def test_a_split_that_is_not_there_gets_a_sentence(load):
    with pytest.raises(ValueError, match="'train', 'test'"):
        load("valid")


# Fetching, from a server on this machine.


class Served(http.server.BaseHTTPRequestHandler):
    """Answers with what its server's `answers` hold: path -> (status, body, length that it claims)."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, body, length = self.server.answers.get(self.path, (404, b"no such file", 12))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served) as running:
        running.answers, running.asked = {}, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DIFFUSION_EDU_MIRROR", f"http://127.0.0.1:{running.server_port}/mirror/")
        yield running
        running.shutdown()
        thread.join()


UPSTREAM = "/mirror/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"


def serve(server, files):
    server.answers = {UPSTREAM + name: (200, content, len(content)) for name, content in files.items()}


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_set_is_fetched_once_from_the_mirror_with_a_progress_bar(little_fashion, server, tmp_path, capsys):
    files, images, labels = little_fashion
    serve(server, files)
    found = fashion_mnist("test")
    assert torch.equal(found.images[:, 0], images["test"]) and torch.equal(found.labels, labels["test"])
    assert "100%" in capsys.readouterr().err
    assert server.asked == [UPSTREAM + "t10k-images-idx3-ubyte.gz", UPSTREAM + "t10k-labels-idx1-ubyte.gz"]
    assert cached(tmp_path) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    fashion_mnist("test")
    assert len(server.asked) == 2
    assert capsys.readouterr().err == ""


def test_a_file_damaged_in_the_cache_is_fetched_again(little_fashion, server, tmp_path):
    files, images, _ = little_fashion
    serve(server, files)
    fashion_mnist("test")
    (path,) = (tmp_path / "cache").rglob("t10k-images*")
    path.write_bytes(path.read_bytes()[:50])
    assert torch.equal(fashion_mnist("test").images[:, 0], images["test"])
    assert len(server.asked) == 3


@pytest.mark.parametrize("trouble", ["cut", "cut and its length hidden", "another content", "404", "500", "no server"])
def test_a_broken_download_gives_a_sentence_and_leaves_nothing_behind(
    trouble, little_fashion, server, tmp_path, monkeypatch
):
    files = little_fashion[0]
    serve(server, files)
    name = "train-labels-idx1-ubyte.gz"
    whole = files[name]
    answers = {
        "cut": (200, whole[:20], len(whole)),
        "cut and its length hidden": (200, whole[:20], 20),
        "another content": (200, gzip.compress(b"another"), len(gzip.compress(b"another"))),
        "404": (404, b"", 0),
        "500": (500, b"sorry", 5),
    }
    if trouble == "no server":
        monkeypatch.setenv("DIFFUSION_EDU_MIRROR", "http://127.0.0.1:9")
    else:
        server.answers[UPSTREAM + name] = answers[trouble]
    with pytest.raises(
        RuntimeError, match=r"fashion_mnist could not fetch http.*DIFFUSION_EDU_MIRROR.*folder="
    ) as caught:
        fashion_mnist("train")
    expected = [] if trouble == "no server" else ["train-images-idx3-ubyte.gz"]  # which came first, and whole
    assert cached(tmp_path) == expected
    if trouble in ("404", "500"):
        assert trouble in str(caught.value)


@pytest.mark.parametrize("mirror", ["ftp://mirror.example", "/a/folder", "mirror.example"])
def test_a_mirror_that_is_no_web_address_gets_a_sentence(mirror, little_fashion, monkeypatch):
    monkeypatch.setenv("DIFFUSION_EDU_MIRROR", mirror)
    with pytest.raises(ValueError, match=r"DIFFUSION_EDU_MIRROR is .*DIFFUSION_EDU_DATA"):
        fashion_mnist("train")


@pytest.mark.parametrize("source", [data_module._MNIST, data_module._FASHION_MNIST, data_module._CIFAR10])
def test_addresses_and_checksums_are_well_formed_and_different(source):
    assert source.url.startswith("https://") and source.url.endswith("/")
    assert all(len(bytes.fromhex(digest)) == 32 for digest in source.sha256.values())
    assert len(set(source.sha256.values())) == len(source.sha256)


# CIFAR-10 in small: 4 pictures a batch.


@pytest.fixture
def little_cifar(monkeypatch):
    """CIFAR-10 with 20 + 4 pictures: (the six .bin files by name, all pictures by split, all labels by split)."""
    sizes = {"train": 20, "test": 4}
    first = {split: labels[:4] for split, labels in data_module._CIFAR10.first.items()}
    monkeypatch.setattr(data_module, "_CIFAR10", dataclasses.replace(data_module._CIFAR10, sizes=sizes, first=first))
    generator = torch.Generator().manual_seed(2)
    files, images, labels = {}, {}, {}
    for split, n in sizes.items():
        images[split] = torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
        labels[split] = torch.randint(10, (n,), generator=generator)
        labels[split][:4] = torch.tensor(first[split])
        records = [bytes([int(c)]) + bytes(x.flatten()) for x, c in zip(images[split], labels[split], strict=True)]
        for k in range(n // 4):
            name = f"data_batch_{k + 1}.bin" if split == "train" else "test_batch.bin"
            files[name] = b"".join(records[4 * k : 4 * k + 4])
    return files, images, labels


def archive(members, folder="cifar-10-batches-bin/"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(folder + name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_is_read_from_the_archive_or_its_files_plane_by_plane(packed, little_cifar, tmp_path):
    files, images, labels = little_cifar
    put(tmp_path, {"cifar-10-binary.tar.gz": archive({"readme.html": b"hello", **files})} if packed else files)
    for split in ("train", "test"):
        found = cifar10(split, tmp_path)
        assert torch.equal(found.images, images[split]) and torch.equal(found.labels, labels[split])
    assert found.names[3] == "cat" and found.images.is_contiguous()
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == ({"cifar-10-binary.tar.gz"} if packed else set(files)), "something was unpacked to the disk"


@pytest.mark.parametrize("change", ["gone", "short", "long", "elsewhere", "a link"])
def test_an_archive_without_a_whole_batch_gives_a_sentence(change, little_cifar, tmp_path):
    files = dict(little_cifar[0])
    third = files.pop("data_batch_3.bin")
    if change == "short":
        files["data_batch_3.bin"] = third[:-1]
    elif change == "long":
        files["data_batch_3.bin"] = third + b"\0"
    elif change == "elsewhere":
        files["../data_batch_3.bin"] = third
    packed = archive(files)
    if change == "a link":
        plain = io.BytesIO(gzip.decompress(packed))
        with tarfile.open(fileobj=plain, mode="a") as tar:
            entry = tarfile.TarInfo("cifar-10-batches-bin/data_batch_3.bin")
            entry.type, entry.linkname = tarfile.SYMTYPE, "data_batch_2.bin"
            tar.addfile(entry)
        packed = gzip.compress(plain.getvalue())
    put(tmp_path, {"cifar-10-binary.tar.gz": packed})
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz holds .*data_batch_3\.bin"):
        cifar10("train", tmp_path)


@pytest.mark.parametrize("damage", ["cut", "cut in its last bytes", "bad checksum", "not gzip", "not tar"])
def test_a_damaged_archive_gives_a_sentence(damage, little_cifar, tmp_path):
    packed = bytearray(archive(little_cifar[0]))
    if damage == "bad checksum":
        packed[-6] ^= 1
    packed = {
        "cut": packed[: len(packed) // 2],
        "cut in its last bytes": packed[:-3],
        "bad checksum": packed,
        "not gzip": b"hello" * 1000,
        "not tar": gzip.compress(b"hello" * 1000),
    }[damage]
    put(tmp_path, {"cifar-10-binary.tar.gz": bytes(packed)})
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz cannot be read to its end"):
        cifar10("train", tmp_path)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_batch_file_of_the_wrong_length_gives_a_sentence(change, little_cifar, tmp_path):
    files = dict(little_cifar[0])
    files["data_batch_5.bin"] = (files["data_batch_5.bin"] + b"\0")[: None if change > 0 else -2]
    put(tmp_path, files)
    with pytest.raises(ValueError, match=r"data_batch_5\.bin holds .* bytes, wanted 12292"):
        cifar10("train", tmp_path)


def test_a_cifar10_label_above_9_gives_a_sentence(little_cifar, tmp_path):
    files = dict(little_cifar[0])
    files["test_batch.bin"] = files["test_batch.bin"][: 3 * 3073] + b"\x0a" + files["test_batch.bin"][3 * 3073 + 1 :]
    put(tmp_path, files)
    with pytest.raises(ValueError, match="labels up to 10"):
        cifar10("test", tmp_path)


# A folder of pictures.


def paint(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def test_subfolders_are_classes_in_the_order_of_their_names(tmp_path):
    for name, gray in [
        ("b/2.png", 20),
        ("b/10.png", 10),
        ("a/x.jpg", 200),
        ("a/.hidden.png", 99),
        (".cache/y.png", 99),
    ]:
        paint(tmp_path / name, Image.new("L", (8, 8), gray))
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    found = image_folder(tmp_path, 4, channels=1)
    assert found.names == ("a", "b") and found.labels.tolist() == [0, 1, 1]
    assert found.images.shape == (3, 1, 4, 4) and found.images.is_contiguous()
    assert found.images[:, 0, 0, 0].tolist() == [200, 10, 20]


def test_a_flat_folder_is_one_class_named_after_it(tmp_path):
    paint(tmp_path / "cats" / "1.PNG", Image.new("RGB", (5, 5), (255, 0, 7)))
    found = image_folder(tmp_path / "cats", 5)
    assert found.names == ("cats",) and found.labels.tolist() == [0]
    assert found.images[0, :, 2, 2].tolist() == [255, 0, 7]


def test_a_square_picture_of_the_wanted_size_is_unchanged(tmp_path, generator):
    pixels = torch.randint(256, (6, 6, 3), generator=generator, dtype=torch.uint8)
    paint(tmp_path / "a.png", Image.fromarray(pixels.numpy()))
    assert torch.equal(image_folder(tmp_path, 6).images[0], pixels.permute(2, 0, 1))


@pytest.mark.parametrize("size", [(12, 4), (4, 12)])
def test_the_central_square_is_kept(size, tmp_path):
    image = Image.new("L", size, 0)
    image.paste(255, ((size[0] - 4) // 2, (size[1] - 4) // 2, (size[0] + 4) // 2, (size[1] + 4) // 2))
    paint(tmp_path / "a.png", image)
    assert (image_folder(tmp_path, 4, 1).images == 255).all() and (image_folder(tmp_path, 2, 1).images == 255).all()


def test_shrinking_averages_instead_of_picking_pixels(tmp_path):
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255
    paint(tmp_path / "a.png", Image.fromarray(board.byte().numpy()))
    assert (image_folder(tmp_path, 8, 1).images.int() - 128).abs().max() <= 3


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # bright above
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    paint(tmp_path / "a.jpg", image, exif=turned, quality=95)
    found = image_folder(tmp_path, 8, 1).images[0, 0]
    assert found[:3].max() < 40 and found[5:].min() > 215


def test_what_is_transparent_becomes_white(tmp_path):
    paint(tmp_path / "a.png", Image.new("RGBA", (4, 4), (200, 0, 0, 0)))
    assert (image_folder(tmp_path, 4).images == 255).all()


def noise(size=(16, 16)):
    return Image.frombytes("L", size, torch.randint(256, (size[0] * size[1],), dtype=torch.uint8).numpy().tobytes())


@pytest.mark.parametrize(
    "kind, damage",  # a flipped bit in a JPEG cannot be seen: it has no checksum
    [
        ("png", "cut"),
        ("png", "empty"),
        ("png", "text"),
        ("png", "flipped"),
        ("jpg", "cut"),
        ("jpg", "empty"),
        ("jpg", "text"),
    ],
)
def test_a_picture_that_cannot_be_read_whole_gives_a_sentence_that_names_it(kind, damage, tmp_path):
    paint(tmp_path / f"a.{kind}", noise())
    bad = tmp_path / f"b.{kind}"
    paint(bad, noise(), **({"compress_level": 0} if kind == "png" else {}))  # so that one bit is one wrong pixel
    raw = bytearray(bad.read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 0x10
    bad.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "text": b"hello", "flipped": raw}[damage])
    with pytest.raises(ValueError, match=rf"cannot use .*b\.{kind} .*Repair it"):
        image_folder(tmp_path, 8)


def test_a_picture_of_another_kind_or_depth_is_refused_by_name(tmp_path):
    paint(tmp_path / "a.png", Image.new("I;16", (4, 4), 40000))
    with pytest.raises(ValueError, match=r"a\.png .*8 bits a channel"):
        image_folder(tmp_path, 4)
    Image.new("L", (4, 4)).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(ValueError, match=r"cannot use .*a\.png"):
        image_folder(tmp_path, 4)


@pytest.mark.parametrize("size", [(8200, 8200), (12000, 12000), (30000, 30000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(size, tmp_path):
    paint(tmp_path / "a.png", Image.new("1", (1, 1)))
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(ValueError, match=r"cannot use .*a\.png .*pixels"):
        image_folder(tmp_path, 4)


def test_folders_that_mean_nothing_get_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder"):
        image_folder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match=r"found no \.png"):
        image_folder(tmp_path, 8)
    paint(tmp_path / "a" / "1.png", noise())
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"found no \.png, \.jpg or \.jpeg file in b"):
        image_folder(tmp_path, 8)
    paint(tmp_path / "2.png", noise())
    with pytest.raises(ValueError, match=r"2\.png beside the subfolder a"):
        image_folder(tmp_path, 8)


@pytest.mark.parametrize("side, channels", [(0, 3), (1025, 3), (8, 2), (8, 4)])
def test_sides_and_channels_that_cannot_be_get_a_sentence(side, channels, tmp_path):
    with pytest.raises(ValueError, match=r"give a side of 1 to 1024|side=0; .* at least 1"):
        image_folder(tmp_path, side, channels)


def test_more_pictures_than_4_gib_are_refused_before_any_is_read(tmp_path, monkeypatch):
    paint(tmp_path / "1.png", noise())
    monkeypatch.setattr(data_module, "_pictures", lambda folder: [tmp_path / "1.png"] * 2000)
    with pytest.raises(ValueError, match="more than 4 GiB"):
        image_folder(tmp_path, 1024)


def test_a_changed_copy_of_a_data_set_has_its_own_order():
    data = TensorData(torch.arange(20.0).reshape(10, 2))
    data.batch(0, 10)
    other = dataclasses.replace(data, seed=7)
    assert torch.equal(other.batch(0, 10)[0], TensorData(data.x, seed=7).batch(0, 10)[0])
    assert len(dataclasses.replace(data, x=data.x[:4]).batch(0, 4)[0].unique(dim=0)) == 4


def test_fresh_pictures_of_8_bits_are_scaled_as_a_data_sets_are():
    pictures = torch.tensor([[0, 255]], dtype=torch.uint8)
    drawn, _ = Fresh(lambda n, generator: pictures.expand(n, 2)).batch(0, 3)
    assert drawn.unique().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("kind", [0, 2, 4, 6])  # gray, colours, and each with transparency
def test_a_png_of_16_bits_a_channel_is_refused(tmp_path, kind):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    row = b"\0" + b"\x12\x34" * 4 * {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(content)
    with pytest.raises(ValueError, match="8 bits a channel"):
        image_folder(tmp_path, 4)


def test_classes_of_a_folder_are_in_the_order_of_their_letters_codes(tmp_path):
    for name in ("a", "B"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "x.png")
    assert image_folder(tmp_path, 4).names == ("B", "a")


def test_a_global_seed_holds_in_its_block_and_leaves_the_generators_of_gpus_alone(monkeypatch):
    touched = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched.append)
    monkeypatch.setattr(torch.mps, "manual_seed", touched.append)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert touched, "torch.manual_seed seeds them all"
    touched.clear()
    with global_seed(7):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected) and not touched
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    names = ("x-ubyte", "x-ubyte.gz")
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr("pathlib.Path.open", refuse)
    monkeypatch.setattr("diffusion_edu.data.gzip.open", refuse)
    for name in names:
        with pytest.raises(PermissionError, match=f"{name} may not be read by this user"):
            read_idx(tmp_path / name)


def test_an_archive_or_a_picture_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    bins = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    for folder, names in (("archive", ["cifar-10-binary.tar.gz"]), ("files", bins), ("pictures", ["a.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    for place in ("pathlib.Path.open", "pathlib.Path.read_bytes", "diffusion_edu.data._Bounded.__init__"):
        monkeypatch.setattr(place, refuse)
    for folder in ("archive", "files"):
        with pytest.raises(PermissionError, match="may not be read by this user"):
            cifar10("test", tmp_path / folder)
    with pytest.raises(PermissionError, match="may not be read by this user"):
        image_folder(tmp_path / "pictures", 8)


def test_a_picture_whose_exif_cannot_be_written_anew_gets_a_sentence(tmp_path):
    entries = struct.pack("<HHI4s", 0x0100, 2, 4, b"abc\0") + struct.pack(
        "<HHIHH", 0x0112, 3, 1, 6, 0
    )  # a width in letters
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + b"\0\0\0\0"
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"cannot use .*a\.jpg .*Repair it"):
        image_folder(tmp_path, 4)


def test_fresh_latents_that_remember_their_encoder_are_data_all_the_same():
    encoder = nn.Linear(2, 2)
    data = Fresh(lambda n, generator: encoder(torch.randn(n, 2, generator=generator)))
    model = DiffusionModel(ResidualMLP(2, 8, 1), CosineSchedule(), V)
    Trainer(model, data, config=TrainConfig(steps=2, batch_size=4, accumulate=2, device="cpu")).run()
    assert encoder.weight.grad is None


def test_the_order_of_the_examples_is_drawn_on_the_cpu_whatever_the_default_device():
    x = torch.arange(8.0).reshape(4, 2)
    with torch.device("meta"):
        found, _ = TensorData(x).batch(0, 2)
    assert torch.equal(found, TensorData(x).batch(0, 2)[0])


PICTURES, LABELS = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    ("images", "labels"),
    [(PICTURES.numpy(), LABELS), (PICTURES, LABELS.numpy()), (PICTURES, [0, 0]), (PICTURES, LABELS == 0)],
)
def test_pictures_and_labels_that_are_no_tensors_of_whole_numbers_get_a_sentence(images, labels):
    with pytest.raises(ValueError, match=r"ImageSet got images = .* and labels = .*; it takes tensors"):
        ImageSet(images, labels, ("a",))


@pytest.mark.parametrize("drawn", [(torch.zeros(3, 2), None, None), torch.zeros(())])
def test_a_draw_of_three_things_or_of_one_number_gets_the_sentence(drawn):
    with pytest.raises(ValueError, match="Fresh asked its draw for 3 examples and got"):
        Fresh(lambda n, generator: drawn).batch(0, 3)

"""Data: the digits are what they should be, ranges are right, and batches repeat."""

import hashlib
from importlib import resources

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import Fresh, GaussianMixture, TensorData, mnist_5k, moons, to_model_range, to_uint8
from diffusion_edu import data as data_module


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


def test_a_damaged_file_gets_a_sentence(monkeypatch):
    raw = resources.files("diffusion_edu").joinpath("assets/mnist_5k.npz").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == data_module.MNIST_5K_SHA256
    monkeypatch.setattr(data_module, "MNIST_5K_SHA256", "0" * 64)
    data_module._mnist_5k.cache_clear()
    with pytest.raises(RuntimeError, match="damaged"):
        mnist_5k()


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

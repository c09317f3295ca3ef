"""The U-Net and its bricks: shapes, what depends on what, and the start at zero."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    NO_LABEL,
    AttentionBlock,
    FourierFeatures,
    LevelClassifier,
    ResidualBlock,
    ResidualMLP,
    UNet,
)
from diffusion_edu.networks import ConditionEmbedding, GroupNorm
from diffusion_edu.unet import _doubled
from tests.cases import awake


def small(**options):
    torch.manual_seed(0)
    net = UNet(**{"channels": (8, 12, 16), "blocks": 1, "embedding": 16, "heads": 2, **options})
    return net


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (1, 3, 32, 20), (3, 1, 7, 13), (1, 1, 1, 1), (2, 1, 8, 8)])
@pytest.mark.parametrize("patch", [1, 2])
def test_the_output_has_the_shape_of_the_input_for_any_side(shape, patch):
    net = awake(small(in_channels=shape[1], patch=patch))
    out = net(torch.randn(shape), torch.rand(shape[0]))
    assert out.shape == shape and torch.isfinite(out).all() and out.abs().sum() > 0


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_an_empty_batch_has_an_empty_answer(patch, side):
    net = small(in_channels=3, out_channels=6, patch=patch, num_classes=2)
    out = net(torch.zeros(0, 3, side, side), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert out.shape == (0, 6, side, side)


def test_an_untrained_net_says_zero():
    assert (small()(torch.randn(2, 1, 28, 28), torch.rand(2)) == 0).all()


def test_blocks_can_be_given_for_each_level():
    net = awake(small(blocks=(1, 2, 3)))
    assert [len(stages) for stages in net.down] == [1, 2, 3] and [len(stages) for stages in net.up] == [3, 2, 1]
    assert net(torch.randn(1, 1, 28, 28), torch.rand(1)).shape == (1, 1, 28, 28)


def test_attention_is_at_the_lowest_resolution_only():
    net = UNet(channels=(8, 8, 8))
    with_attention = [name for name, module in net.named_modules() if isinstance(module, AttentionBlock)]
    assert with_attention and all(name.startswith(("down.2", "middle.0", "up.0")) for name in with_attention)


def test_a_prediction_does_not_depend_on_its_batch_mates():
    net = awake(small(num_classes=3)).eval()
    x, level = torch.randn(4, 1, 28, 28), torch.rand(4)
    labels = torch.tensor([0, 2, 1, NO_LABEL])
    alone = net(x[:1], level[:1], labels[:1])
    assert_close(net(x, level, labels)[:1], alone, atol=1e-5, rtol=1e-4)


def test_every_pixel_sees_the_level_the_label_and_every_other_pixel():
    net = awake(small(num_classes=3))
    x, level = torch.randn(1, 1, 16, 16), torch.tensor([0.3])
    base = net(x, level, torch.tensor([1]))
    assert ((net(x, level + 0.1, torch.tensor([1])) - base).abs() > 0).all()
    assert ((net(x, level, torch.tensor([2])) - base).abs() > 0).all()
    corner = x.clone()
    corner[..., 0, 0] += 1
    assert ((net(corner, level, torch.tensor([1])) - base).abs() > 0).all()


def test_no_labels_and_the_null_label_are_the_same():
    net = awake(small(num_classes=3))
    x, level = torch.randn(2, 1, 8, 8), torch.rand(2)
    assert torch.equal(net(x, level), net(x, level, torch.tensor([NO_LABEL, NO_LABEL])))


def test_channels_last_gives_the_same_numbers():
    net = awake(small(num_classes=3))
    x, level = torch.randn(2, 1, 28, 28), torch.rand(2)
    plain = net(x, level)
    fast = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), level)
    assert_close(fast, plain, atol=1e-4, rtol=1e-4)


def test_the_nets_run_on_meta():
    net = small(num_classes=3).to("meta")
    assert net(torch.randn(2, 1, 28, 28, device="meta"), torch.rand(2, device="meta")).is_meta
    mlp = ResidualMLP(2).to("meta")
    assert mlp(torch.randn(2, 2, device="meta"), torch.rand(2, device="meta")).is_meta


def test_a_net_in_float64_keeps_its_digits():
    net = awake(small(num_classes=3))
    x, level, label = torch.randn(2, 1, 28, 28), torch.rand(2), torch.tensor([0, 2])
    in_32 = net(x, level, label).double()
    in_64 = net.double()(x.double(), level.double(), label)
    assert in_64.dtype == torch.float64
    assert_close(in_64, in_32, atol=1e-4, rtol=1e-4)
    # a change that float32 would lose is there: the answer moves by as much as its slope says
    moved = net(x.double() + 1e-9, level.double(), label) - in_64
    assert_close(2 * moved, net(x.double() + 2e-9, level.double(), label) - in_64, rtol=1e-3, atol=1e-13)
    assert float(moved.detach().abs().max()) > 1e-11


def test_the_nets_run_on_the_device(device):
    net = awake(small(num_classes=3)).to(device)
    x, level, label = torch.randn(2, 1, 28, 28), torch.rand(2), torch.tensor([0, 2])
    there = net(x.to(device), level.to(device), label.to(device)).cpu()
    assert_close(there, net.cpu()(x, level, label), atol=1e-3, rtol=1e-3)


def test_a_patch_is_cheaper():
    def products(patch):
        net, x = UNet(channels=(8, 16), patch=patch), torch.randn(1, 1, 32, 32, device="meta")
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            net.to("meta")(x, torch.rand(1, device="meta"))
        return counter.get_total_flops()

    assert products(1) > 3.5 * products(2)


def test_gradients_reach_every_parameter():
    net = awake(small(num_classes=3, patch=2))
    net(torch.randn(2, 1, 28, 28), torch.rand(2), torch.tensor([0, NO_LABEL])).square().sum().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # a bias just before a norm over groups of one channel could vanish; no group here is that small
    assert without == []


@pytest.mark.parametrize("patch", [1, 2])
def test_noise_finer_than_bfloat16_gets_in_under_autocast(patch):
    net, seen = awake(small(patch=patch)), []
    net.stem.register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    x = torch.ones(4, 1, 8, 8) + 4e-4 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x.bfloat16(), torch.ones_like(x).bfloat16()), "of such noise bfloat16 leaves nothing"
    net(x, torch.full((4,), 1e-3))
    with torch.autocast("cpu", torch.bfloat16):
        net(x, torch.full((4,), 1e-3))
    exact, under_autocast = seen
    assert under_autocast.dtype == torch.float32 and torch.equal(under_autocast, exact)


@pytest.mark.parametrize("side", [(8, 8), (7, 8), (1, 5)])
def test_doubling_is_the_same_where_it_is_compiled(side, monkeypatch):
    half = [(n + 1) // 2 for n in side]
    h = torch.randn(2, 3, *half, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, *side, dtype=torch.float64)
    plain = _doubled(h, *side)
    (by_plain,) = torch.autograd.grad((weight * plain).sum(), h)
    assert torch.equal(plain, F.interpolate(h, size=side))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    compiled = _doubled(h, *side)
    assert torch.equal(compiled, plain)
    assert_close(torch.autograd.grad((weight * compiled).sum(), h)[0], by_plain)


@pytest.mark.filterwarnings("ignore")  # the compiler's advice
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_a_compiled_net_has_the_gradients_of_the_plain_one(autocast):
    # PyTorch 2.13 on a CPU: where nearest-neighbour upsampling was compiled in bfloat16, all below it learnt nothing.
    net = awake(small(channels=(8, 12), patch=2, num_classes=3))
    x, level, labels = torch.randn(8, 1, 12, 12), torch.rand(8), torch.arange(8) % 3
    compiled, gradients = torch.compile(net), []
    for network, in_bf16 in ((net, False), (compiled, autocast)):
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            loss = (network(x, level, labels).float() - x).square().mean()
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
    largest = max(gradient.norm() for gradient in gradients[0])
    for (name, _), plain, found in zip(net.named_parameters(), *gradients, strict=True):
        apart = (found - plain).norm() / (plain.norm() + 0.02 * largest)
        assert apart < (0.1 if autocast else 1e-4), f"{name}: {apart:.3f} of its gradient"


def test_attention_is_pytorchs():
    torch.manual_seed(0)
    block = AttentionBlock(8, heads=2)
    nn.init.normal_(block.out.weight)
    x = torch.randn(3, 8, 4, 5)
    q, k, v = block.qkv(block.norm(x)).reshape(3, 3, 2, 4, 20).unbind(1)
    reference = nn.functional.scaled_dot_product_attention(*(a.transpose(-2, -1) for a in (q, k, v)))
    assert_close(block(x), x + block.out(reference.transpose(-2, -1).reshape(3, 8, 4, 5)), atol=1e-5, rtol=1e-4)


def test_a_residual_block_starts_as_the_identity():
    block, x = ResidualBlock(8, 8, 16), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 16)), x)


def test_group_norm_divides_any_number_of_channels():
    for channels in (1, 3, 7, 12, 48, 64):
        norm = GroupNorm(channels)
        assert channels % norm.num_groups == 0
        assert norm(torch.randn(2, channels, 3, 3).bfloat16()).dtype == torch.bfloat16


def test_fourier_features_tell_neighbouring_levels_apart():
    features = FourierFeatures(64)(torch.linspace(0, 1, 1001))
    assert features.shape == (1001, 64) and features.abs().max() <= 1
    steps = (features[1:] - features[:-1]).norm(dim=1)
    assert steps.min() > 0.5 * steps.max()
    with pytest.raises(ValueError, match="even number"):
        FourierFeatures(7)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: UNet(channels=()), "at least one level"),
        (lambda: UNet(channels=(8, 8), attention=(True,)), "one entry of each per level"),
        (lambda: UNet(channels=(8, 8), blocks=(1, 2, 3)), "one entry of each per level"),
        (lambda: UNet(channels=(8, 0)), "at least 1"),
        (lambda: UNet(channels=(8,), heads=3), "heads must divide"),
        (lambda: UNet(channels=(8,))(torch.zeros(1, 3, 8, 8), torch.zeros(1)), r"\(B, 1, H, W\)"),
        (lambda: UNet(channels=(8,))(torch.zeros(2, 1, 8, 8), torch.zeros(1)), "one number each"),
        (lambda: UNet(channels=(8,))(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1).long()), "unconditional"),
        (
            lambda: UNet(channels=(8,), num_classes=2)(torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(1).long()),
            "one integer",
        ),
        (
            lambda: UNet(channels=(8,), num_classes=2)(torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(2)),
            "one integer",
        ),
    ],
)
def test_wrong_arguments_get_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("side", [8, 9, 28])
def test_a_classifier_of_noisy_pictures_takes_any_side_and_hears_the_level(side):
    net = LevelClassifier(1, 5, (8, 16)).eval()
    x = torch.randn(3, 1, side, side)
    level = torch.tensor([0.1, 0.5, 0.9])
    assert (net(x, level) == 0).all()  # untrained: no opinion
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    logits = net(x, level)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(net(x[1:2], level[1:2]), logits[1:2], rtol=1e-4, atol=1e-4)  # no batch mates
    assert (net(x, 1 - level) - logits).abs()[[0, 2]].amin() > 1e-4
    with pytest.raises(ValueError, match="answers with labels"):
        net(x, level, torch.zeros(3).long())


def test_a_network_of_points_can_answer_with_logits():
    assert ResidualMLP(2, 8, 1, out_dim=5)(torch.randn(3, 2), torch.rand(3)).shape == (3, 5)


@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 0.1), (torch.half, 0.02)])
def test_a_network_in_half_precision_answers_in_it(dtype, within):
    torch.manual_seed(0)
    net, x, level = small().eval(), torch.randn(3, 1, 12, 12), torch.tensor([0.1, 0.5, 0.9])
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    with torch.no_grad():
        exact = net(x, level)
        answer = net.to(dtype)(x.to(dtype), level.to(dtype))
    assert answer.dtype == dtype
    assert (answer.float() - exact).norm() < within * exact.norm()


def test_dropout_acts_in_training_and_not_in_eval_mode():
    torch.manual_seed(0)
    network = awake(UNet(channels=(8, 12), blocks=1, embedding=16, heads=2, dropout=0.5))
    x, level = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        assert not torch.equal(network.train()(x, level), network(x, level))
        assert torch.equal(network.eval()(x, level), network(x, level))


def test_where_patches_do_not_fit_the_edge_is_repeated():
    torch.manual_seed(0)
    network = awake(UNet(channels=(8, 12), blocks=1, embedding=16, heads=2, patch=2)).eval()
    x, level = torch.randn(2, 1, 7, 5), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        assert torch.equal(network(x, level), network(F.pad(x, (0, 1, 0, 1), mode="replicate"), level)[..., :7, :5])


def test_a_label_that_nobody_could_read_falls_off_the_table_and_not_onto_no_label(monkeypatch):
    # On a GPU the values are not looked at: labels 1 to 10 for 10 classes must not train the row of "no label".
    embed = ConditionEmbedding(16, 10)
    level, labels = torch.rand(3), torch.tensor([0, 9, -1])
    expected = embed(level, labels)
    monkeypatch.setattr("diffusion_edu.door.readable", lambda x: False)
    assert_close(embed(level, labels), expected, rtol=0, atol=0)
    for wrong in (10, 11):
        with pytest.raises(IndexError):
            embed(level[:1], torch.tensor([wrong]))


@pytest.mark.parametrize(
    ("dtype", "classes"), [(torch.int8, 128), (torch.int8, 200), (torch.uint8, 256), (torch.int16, 300)]
)
def test_a_label_means_the_same_in_every_type_of_whole_numbers(dtype, classes):
    embed, level, labels = ConditionEmbedding(8, classes), torch.rand(3), torch.tensor([0, 5, 99])
    assert torch.equal(embed(level, labels.to(dtype)), embed(level, labels))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_a_cast_to_half_precision_and_back_leaves_the_waves_of_the_level_as_they_were(dtype):
    level = torch.linspace(0, 1, 101)
    assert torch.equal(FourierFeatures().to(dtype).float()(level), FourierFeatures()(level))
    assert FourierFeatures().to(dtype)(level.to(dtype)).dtype == dtype
    assert FourierFeatures().double()(level.double()).dtype == torch.float64


def test_blocks_may_be_any_whole_number_and_what_is_no_list_is_a_sentence():
    assert len(UNet(channels=(8, 8), blocks=np.int64(2), embedding=16).down[1]) == 2
    for wrong, words in (
        ({"blocks": 2.0}, r"blocks\[0\]=2\.0; it must be"),
        ({"attention": True}, "attention=True; give"),
    ):
        with pytest.raises(ValueError, match=f"UNet got {words}"):
            UNet(channels=(8,), **wrong)


def test_a_network_says_of_what_is_no_tensor_that_it_is_none_and_meta_has_no_autocast():
    net = UNet(channels=(8,), blocks=1, embedding=16)
    with pytest.raises(TypeError, match="UNet got x = a NumPy array of shape"):
        net(np.zeros((1, 1, 8, 8), np.float32), torch.zeros(1))
    with pytest.raises(TypeError, match=r"UNet got level = 0\.5"):
        net(torch.zeros(1, 1, 8, 8), 0.5)
    with pytest.raises(TypeError, match=r"UNet got x of type torch\.float64, and its weights are torch\.float32"):
        net.to("meta")(torch.zeros(1, 1, 8, 8, dtype=torch.float64, device="meta"), torch.zeros(1, device="meta"))

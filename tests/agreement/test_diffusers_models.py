"""Both ways round: our U-Net in their pipelines, and their U-Net in our samplers, with random weights.

A pipeline draws its first noise and the noise of its steps from one generator, and so do we. Its pictures are in
[0, 1], clipped.
"""

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    BetaSchedule,
    DiffusionModel,
    Treated,
    UNet,
    V,
    ancestral,
    clip_x_0,
    ddim,
    dpmpp_2m,
    heun,
    leading,
    sample,
    times,
    to_model_range,
    trailing,
    transition_std,
)
from tests.agreement.peers import FromDiffusers, InTheirPipeline, index, peer

diffusers = peer("diffusers", "course")

T = 1000
SCHEDULE = BetaSchedule.linear(T)
ROWS = {"epsilon": EPS, "v_prediction": V}


def seeded():
    return torch.Generator().manual_seed(11)


def our_unet(num_classes=None):
    torch.manual_seed(1)
    unet = UNet(2, channels=(8, 12), blocks=1, embedding=16, heads=2, num_classes=num_classes)
    torch.nn.init.normal_(unet.out.weight, std=0.2)  # untrained it says 0, which any two samplers agree on
    return unet.double()


def their_unet(classes=None):
    torch.manual_seed(2)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        num_class_embeds=classes,
    )
    return unet.double().eval()


def pictures(pipeline, steps, **arguments):
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=3, generator=seeded(), num_inference_steps=steps, output_type="pt", **arguments).images
    return images


def ours(step, denoiser, times, dtype=torch.float64, condition=None):
    generator = seeded()
    x = torch.randn(3, 2, 8, 8, generator=generator, dtype=dtype)
    return (sample(step, denoiser, x, times, condition, generator) / 2 + 0.5).clamp(0, 1)


def assert_the_same_pictures(a, b, atol):
    assert_close(a, b, rtol=0, atol=atol)
    assert float(a.std()) > 0.05 and float((a[0] - a[1]).abs().max()) > 0.2  # and not one grey


# their pipeline, our network


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_our_unet_in_ddpm_pipeline_draws_what_ancestral_draws(row, variance):
    model = DiffusionModel(our_unet(), SCHEDULE, ROWS[row]).eval()
    scheduler = diffusers.DDPMScheduler(prediction_type=row, variance_type=variance)
    theirs = pictures(diffusers.DDPMPipeline(InTheirPipeline(model, 2, 8), scheduler), 10)
    step = ancestral() if variance == "fixed_small" else ancestral(transition_std)
    assert_the_same_pictures(ours(step, Treated(model, clip_x_0), leading(T, 10)), theirs, atol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_our_unet_in_ddim_pipeline_draws_what_ddim_draws_with_labels_too(eta):
    labels = torch.tensor([0, 2, 1])
    model = DiffusionModel(our_unet(num_classes=3), SCHEDULE, V).eval()
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False)
    pipeline = diffusers.DDIMPipeline(InTheirPipeline(model, 2, 8, labels), scheduler)
    mine = ours(ddim(eta), model, trailing(T, 10), condition=labels)
    assert_the_same_pictures(mine, pictures(pipeline, 10, eta=eta), atol=1e-10)


def test_as_it_comes_in_float32_the_pictures_are_the_same_to_a_grey_level():
    """Their table and their steps in float32, as anyone runs them; a grey level is 0.004."""
    model = DiffusionModel(our_unet().float(), SCHEDULE, V).eval()
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False)
    theirs = pictures(diffusers.DDIMPipeline(InTheirPipeline(model, 2, 8), scheduler), 10)
    assert theirs.dtype == torch.float32
    assert_the_same_pictures(ours(ddim(), model, trailing(T, 10), torch.float32), theirs, atol=2e-4)


# our sampler, their network


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("row", ROWS)
def test_their_unet_in_our_samplers_draws_what_its_pipelines_draw(row):
    unet = their_unet()
    model = DiffusionModel(FromDiffusers(unet), SCHEDULE, ROWS[row], level=index).eval()
    clipped = Treated(model, clip_x_0)

    ddpm = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(prediction_type=row))
    assert_the_same_pictures(ours(ancestral(), clipped, leading(T, 10)), pictures(ddpm, 10), atol=1e-10)

    scheduler = diffusers.DDIMScheduler(prediction_type=row, timestep_spacing="trailing")
    theirs = pictures(diffusers.DDIMPipeline(unet, scheduler), 10, eta=0.3, use_clipped_model_output=True)
    assert_the_same_pictures(ours(ddim(0.3), clipped, trailing(T, 10)), theirs, atol=1e-10)


@pytest.mark.usefixtures("double")
def test_a_label_reaches_their_unet():
    """Their pipelines know no labels, so the loop is ours with their scheduler."""
    unet, labels = their_unet(classes=4), torch.tensor([3, 0, 1])
    model = DiffusionModel(FromDiffusers(unet), SCHEDULE, V, level=index).eval()
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    x = torch.randn(3, 2, 8, 8, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        for i in scheduler.timesteps:
            x = scheduler.step(unet(x, i, class_labels=labels).sample, i, x).prev_sample
    mine = ours(ddim(), model, trailing(T, 10), condition=labels)
    assert_the_same_pictures(mine, (x / 2 + 0.5).clamp(0, 1), atol=1e-10)
    assert float((mine - ours(ddim(), model, trailing(T, 10), condition=labels.flip(0))).abs().max()) > 1e-3


@pytest.mark.parametrize("step", [dpmpp_2m(), heun()], ids=["dpmpp_2m", "heun"])
def test_samplers_that_go_between_the_nodes_take_their_unet_too(step):
    """A level between two indices is a time that their embedding of time knows as well."""
    model = DiffusionModel(FromDiffusers(their_unet()), SCHEDULE, V, level=index).eval()
    fine, coarse = (ours(step, model, times(n)) for n in (16, 8))
    exact = ours(step, model, times(32))
    assert float((fine - exact).abs().mean()) < float((coarse - exact).abs().mean()) < 0.1


def test_the_range_of_pictures_is_theirs():
    x = torch.arange(256, dtype=torch.uint8)
    assert_close(to_model_range(x) / 2 + 0.5, x.float() / 255, rtol=0, atol=1e-7)

"""What ``pytest --device cuda`` is for: each thing done on the device, and held against the same thing on the CPU.

On the CPU itself the two are one computation done twice, and what is left is that both agree, are finite and lie there.
Numbers go in as float32, so that a device without float64 is asked for nothing that the package does not promise.
"""

import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    NO_LABEL,
    SCORE,
    VELOCITY,
    X0,
    BetaSchedule,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    CosineSchedule,
    DiffusionModel,
    EmpiricalDenoiser,
    Fresh,
    GaussianMixture,
    Importance,
    Inpainting,
    LearntVarianceModel,
    LevelClassifier,
    NoisyClassifier,
    Normal,
    ResidualMLP,
    TensorData,
    TrainConfig,
    Trainer,
    Treated,
    UNet,
    V,
    VPSchedule,
    adaptive_ode,
    adaptive_sde,
    ancestral,
    annealed_langevin,
    classifier_loss,
    clip_x_0,
    corrected,
    ddim,
    denoising_loss,
    dequantize,
    diffuse,
    digit_classifier,
    discretized_log_prob,
    dpmpp_2m,
    dynamic_threshold,
    edm,
    edm_weight,
    elbo,
    elbo_weight,
    energy_distance,
    euler,
    euler_maruyama,
    frechet_distance,
    heun,
    hybrid_loss,
    invert,
    kid,
    learnt_std,
    log_likelihood,
    log_normal,
    median_distance,
    memorisation,
    min_snr,
    mmd,
    moons,
    nearest,
    noisy_digit_classifier,
    posterior_kl,
    posterior_std,
    precision_recall,
    predict,
    prior,
    q_marginal,
    q_posterior,
    q_sample,
    q_transition,
    resampled,
    sample,
    simple,
    slerp,
    stratified,
    times,
    trajectory,
    transition_std,
    uniform,
    with_floor,
)
from diffusion_edu import sampler as sampler_module
from diffusion_edu.analytic import gaussian
from diffusion_edu.cli import load_run
from diffusion_edu.denoiser import angle, eps, score, time_at_angle, velocity
from diffusion_edu.likelihood import pixel_decoder
from tests.cases import SCHEDULES, awake, schedule_on

CPU = torch.device("cpu")
SHAPE = (4, 1, 8, 8)
LABELS = torch.tensor([0, 2, 1, NO_LABEL])
# off the nodes of every table, where rounding decides which piece a time lies in
TIMES = (1.1e-4, 0.2718, 0.6183, 0.99993)

NETWORK = 3e-3  # the share by which a network's answer may differ: convolutions may be done in TF32
WALK = 2e-2  # and a walk of some steps with a network

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
every_row = pytest.mark.parametrize("row", [X0, EPS, V, SCORE, VELOCITY, edm()], ids=lambda row: row.name)


def real(device):
    """The type that times are counted in: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def spread(device, *values):
    """Times (B,) on the device, or one () there."""
    value = values[0] if len(values) == 1 else list(values)
    return torch.tensor(value, dtype=real(device), device=device)


def batch(*shape, seed=0):
    """The same standard normal numbers every time, on the CPU."""
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def seeded_on(device, seed=0):
    return torch.Generator(device).manual_seed(seed)


def alike(device, found, wanted, rtol=1e-5, atol=1e-5):
    """What was found lies on the device, and number by number it is what the CPU says."""
    assert found.device.type == device.type and wanted.device.type == "cpu"
    assert_close(found.cpu().double(), wanted.double(), rtol=rtol, atol=atol, equal_nan=False)


def near(device, found, wanted, share):
    """What was found lies on the device, is finite, and differs from what the CPU says by a share of its size."""
    assert found.device.type == device.type and wanted.device.type == "cpu" and found.shape == wanted.shape
    found, wanted = found.detach().cpu().double(), wanted.detach().double()
    assert found.isfinite().all() and wanted.norm() > 0
    assert (found - wanted).norm() <= share * wanted.norm()


def unet(**options):
    torch.manual_seed(0)
    net = UNet(**{"channels": (8, 12), "blocks": 1, "num_classes": 3, "embedding": 16, "heads": 2, **options})
    return awake(net, 0.1).eval()


def on_both(device, make):
    """Two models that are the same but for where they are: on the device, and on the CPU."""
    here = make()
    return copy.deepcopy(here).to(device), here


def model_of(name="cosine", row=V, **options):
    return DiffusionModel(unet(**options), schedule_on(CPU, name), row).eval()


def mixture_on(device):
    return GaussianMixture(*moons()).to(torch.empty(0, device=device))


# schedules


@every_schedule
def test_a_schedule_says_the_same_on_the_device(name, device):
    there, here = schedule_on(device, name), schedule_on(CPU, name)
    one, many = torch.tensor(TIMES[1]), torch.tensor(TIMES)
    within = 1e-5 if device.type != "mps" else 2e-4  # a table in float32 has fewer digits
    for t in (one, many):
        for ask in ("alpha", "sigma", "log_snr", "drift", "diffusion"):
            alike(device, getattr(there, ask)(t.to(device)), getattr(here, ask)(t), within, within)
        for found, wanted in zip(there.rates(t.to(device)), here.rates(t), strict=True):
            alike(device, found, wanted, within, within)
        log_snr = here.log_snr(t).float()
        alike(device, there.time_at(log_snr.to(device)), here.time_at(log_snr), within, within)
        alike(device, there.time_at(there.log_snr(t.to(device))), t, 1e-3, 1e-4)
        alike(device, angle(there, t.to(device)), angle(here, t), within, within)
        level = angle(here, t).float()
        alike(device, time_at_angle(there, level.to(device)), time_at_angle(here, level), 1e-3, 1e-4)


@every_schedule
def test_a_schedule_has_its_ends_on_the_device(name, device):
    there, here = schedule_on(device, name), schedule_on(CPU, name)
    ends = torch.tensor([0.0, 1.0])
    for ask in ("alpha", "sigma"):
        alike(device, getattr(there, ask)(ends.to(device)), getattr(here, ask)(ends))
    log_snr = there.log_snr(ends.to(device))
    assert log_snr[0] == math.inf and log_snr[1] < log_snr[0]
    far = torch.tensor([1e4, -1e4], device=device)  # outside of what a schedule reaches: its nearest end
    alike(device, there.time_at(far), ends, atol=1e-4)


@every_schedule
def test_scales_come_to_the_batch_wherever_the_time_is(name, device):
    there, here = schedule_on(device, name), schedule_on(CPU, name)
    like = batch()
    times_there = (
        (spread(CPU, 0.6183), spread(CPU, 0.6183)),  # as samplers have it
        (spread(device, 0.6183), spread(CPU, 0.6183)),
        (spread(device, *TIMES), spread(CPU, *TIMES)),
        (spread(CPU, *TIMES), spread(CPU, *TIMES)),
    )
    for t, t_here in times_there:
        for found, wanted in zip(there.scales(t, like.to(device)), here.scales(t_here, like), strict=True):
            assert found.dtype == like.dtype and found.shape == wanted.shape
            alike(device, found, wanted, 1e-4, 1e-5)


def test_a_table_of_betas_counts_its_steps_on_the_device(device):
    there = schedule_on(device, "linear")
    t = there.time(torch.tensor([0, 1, 1000], device=device))
    assert t.dtype == real(device) and there.time(7).device.type == device.type
    alike(device, t, torch.tensor([0, 1e-3, 1]), atol=1e-7)
    alike(device, there.alpha_bars, SCHEDULES["linear"].alpha_bars, 1e-5, 1e-6)
    assert copy.deepcopy(there).to(CPU).half().betas.dtype == torch.float64


# process, parameterisation


PROCESS = {
    "q_sample": lambda schedule, x, y, s, t: (q_sample(schedule, x, t, y),),
    "q_marginal": lambda schedule, x, y, s, t: normal(q_marginal(schedule, x, t), x),
    "q_transition": lambda schedule, x, y, s, t: normal(q_transition(schedule, x, s, t), y),
    "q_posterior": lambda schedule, x, y, s, t: normal(q_posterior(schedule, y, x, s, t), x),
    "stds": lambda schedule, x, y, s, t: tuple(
        std.to(x).expand(len(x)) for std in (posterior_std(schedule, s, t), transition_std(schedule, s, t))
    ),
    "posterior_kl": lambda schedule, x, y, s, t: (posterior_kl(schedule, x, torch.full_like(x, 0.3), s, t),),
}


def normal(q, x):
    std = q.std.expand_as(x)
    return q.mean, std, q.log_prob(x), q.kl(Normal(x, torch.full_like(x, 0.7)))


@every_schedule
@pytest.mark.parametrize("what", PROCESS)
def test_a_process_is_the_same_on_the_device(name, what, device):
    there, here = schedule_on(device, name), schedule_on(CPU, name)
    x, y, ask = batch(), batch(seed=1), PROCESS[what]
    early, late = (0.0513, 0.1711, 0.4567, 0.9011), (0.1234, 0.2718, 0.6183, 0.99993)
    wanted_one = ask(here, x, y, spread(CPU, 0.2718), spread(CPU, 0.6183))
    wanted_many = ask(here, x, y, spread(CPU, *early), spread(CPU, *late))
    for where in (CPU, device):
        one = ask(there, x.to(device), y.to(device), spread(where, 0.2718), spread(where, 0.6183))
        many = ask(there, x.to(device), y.to(device), spread(where, *early), spread(where, *late))
        for found, wanted in zip((*one, *many), (*wanted_one, *wanted_many), strict=True):
            near(device, found, wanted, 1e-5 if device.type != "mps" else 1e-3)


@every_schedule
def test_what_is_drawn_on_the_device_lies_there_and_comes_again(name, device):
    schedule = schedule_on(device, name)
    x, t = batch().to(device), spread(device, *TIMES)
    a, b, c = (q_marginal(schedule, x, t).sample(seeded_on(device, seed)) for seed in (0, 0, 1))
    assert a.device.type == device.type and torch.equal(a, b) and not torch.equal(a, c) and a.isfinite().all()
    start = prior(schedule, SHAPE, seeded_on(device))
    assert start.device.type == device.type and torch.equal(start, prior(schedule, SHAPE, seeded_on(device)))
    # one seed of the CPU is the same noise on every machine
    same = prior(schedule, SHAPE, seeded_on(CPU), device=device)
    alike(device, same, prior(schedule_on(CPU, name), SHAPE, seeded_on(CPU)))


@every_schedule
@every_row
def test_a_parameterisation_converts_the_same_on_the_device(name, row, device):
    there, here = schedule_on(device, name), schedule_on(CPU, name)
    x_0, noise = batch(), batch(seed=1)
    within = 1e-5 if device.type != "mps" else 1e-3
    for where, values in ((CPU, TIMES[1:2]), (device, TIMES[1:2]), (device, (0.1234, 0.2718, 0.6183, 0.9))):
        t, t_here = spread(where, *values), spread(CPU, *values)
        x_t = q_sample(here, x_0, t_here, noise)
        o = row.target(here, x_0, noise, t_here)
        near(device, row.target(there, x_0.to(device), noise.to(device), t), o, within)
        for ask, truth in ((row.x_0, x_0), (row.eps, noise)):
            wanted, found = ask(here, o, x_t, t_here), ask(there, o.to(device), x_t.to(device), t)
            near(device, found, wanted, within)
            near(device, found, truth, 1e-2)
        for ask in (row.determinant, row.weight, row.input_scale):
            assert_close(ask(there, t).cpu().double(), ask(here, t_here), rtol=within, atol=1e-6)


# losses


@every_schedule
@pytest.mark.parametrize(
    "weight", [None, simple, min_snr(), elbo_weight, edm_weight()], ids=["none", "simple", "min_snr", "elbo", "edm"]
)
def test_every_weight_is_the_same_on_the_device(name, weight, device):
    torch.manual_seed(0)
    there, here = on_both(
        device, lambda: DiffusionModel(awake(ResidualMLP(2, 16, 1), 0.1), schedule_on(CPU, name), V).eval()
    )
    x_0, noise, t = batch(4, 2), batch(4, 2, seed=1), (0.1234, 0.2718, 0.6183, 0.9)
    wanted = denoising_loss(here, x_0, spread(CPU, *t), weight, eps=noise)
    found = denoising_loss(there, x_0.to(device), spread(device, *t), weight, eps=noise.to(device))
    near(device, found, wanted, 1e-4)


SAMPLERS_OF_TIMES = {
    "uniform": lambda schedule: uniform,
    "stratified": lambda schedule: stratified,
    "log_normal": log_normal,
    "importance": lambda schedule: Importance(torch.tensor([1.0, 2.0, 5.0])),
}


@pytest.mark.parametrize("kind", SAMPLERS_OF_TIMES)
@pytest.mark.parametrize("name", ["linear", "cosine", "edm"])
def test_times_are_drawn_on_the_generators_device(kind, name, device):
    schedule = schedule_on(device, name)
    draw = SAMPLERS_OF_TIMES[kind](schedule)
    t, again, other = (draw(64, seeded_on(device, seed)) for seed in (3, 3, 4))
    assert t.shape == (64,) and t.device.type == device.type and t.dtype == real(device)
    assert torch.equal(t, again) and not torch.equal(t, other)
    assert bool(((t > 0) & (t <= 1)).all())
    if kind == "stratified":
        slices = torch.ceil(t.cpu().double() * 64 - 1e-4).long().sort().values
        assert torch.equal(slices, torch.arange(1, 65))
    if kind == "importance":
        alike(device, draw.factor(t), draw.factor(t.cpu()))
    loss = denoising_loss(model_of(name).to(device), batch(64, 1, 4, 4).to(device), t, generator=seeded_on(device))
    assert loss.shape == (64,) and loss.device.type == device.type and loss.isfinite().all()


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_the_loss_and_its_gradient_are_the_same_on_the_device(name, device):
    there, here = on_both(device, lambda: model_of(name))
    x_0, noise, t = batch(), batch(seed=1), (0.1234, 0.2718, 0.6183, 0.9)
    wanted = denoising_loss(here, x_0, spread(CPU, *t), condition=LABELS, eps=noise)
    found = denoising_loss(there, x_0.to(device), spread(device, *t), condition=LABELS.to(device), eps=noise.to(device))
    near(device, found, wanted, NETWORK)
    wanted.mean().backward()
    found.mean().backward()
    near(device, gradient(there), gradient(here), 3 * NETWORK)


@pytest.mark.parametrize("name", ["linear", "linear-10", "cosine"])
def test_a_learnt_variance_is_the_same_on_the_device(name, device):
    def make():
        return LearntVarianceModel(unet(out_channels=2), schedule_on(CPU, name), V).eval()

    there, here = on_both(device, make)
    x_0, noise, t = batch(), batch(seed=1), (5e-4, 0.2718, 0.6183, 0.99)
    wanted = hybrid_loss(here, x_0, spread(CPU, *t), LABELS, noise)
    found = hybrid_loss(there, x_0.to(device), spread(device, *t), LABELS.to(device), noise.to(device))
    near(device, found, wanted, NETWORK)
    wanted.mean().backward()
    found.mean().backward()
    near(device, gradient(there), gradient(here), 3 * NETWORK)
    x_0_hat, std = there.denoise_with_std(x_0.to(device), spread(CPU, 0.5), spread(CPU, 0.6), LABELS.to(device))
    for found, wanted in zip(
        (x_0_hat, std), here.denoise_with_std(x_0, spread(CPU, 0.5), spread(CPU, 0.6), LABELS), strict=True
    ):
        near(device, found, wanted, NETWORK)


def noisy_classifier():
    torch.manual_seed(0)
    return NoisyClassifier(awake(LevelClassifier(1, 3, (4, 8)), 0.1), CosineSchedule()).eval()


def test_a_classifier_of_noisy_pictures_is_the_same_on_the_device(device):
    there, here = on_both(device, noisy_classifier)
    x, noise, t = batch(), batch(seed=1), (0.1234, 0.2718, 0.6183, 0.9)
    for where in (CPU, device):
        near(device, there(x.to(device), spread(where, 0.5)), here(x, spread(CPU, 0.5)), NETWORK)
    wanted = classifier_loss(here, x, spread(CPU, *t), condition=LABELS, eps=noise)
    found = classifier_loss(there, x.to(device), spread(device, *t), condition=LABELS.to(device), eps=noise.to(device))
    near(device, found, wanted, NETWORK)
    assert found[3] == 0, "where the label is hidden there is nothing to say"


# samplers


CERTAIN = {"ddim": ddim(), "euler": euler(), "heun": heun(), "dpmpp_2m": dpmpp_2m()}
NOISY = {
    "ancestral": ancestral(),
    "ancestral, beta": ancestral(transition_std),
    "ddim, eta": ddim(0.5),
    "euler_maruyama": euler_maruyama(),
    "corrected": corrected(ddim()),
    "annealed_langevin": annealed_langevin(2),
    "resampled": resampled(ancestral(), 2),
}
STEPS = CERTAIN | NOISY
every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
GRID = 0.9 * times(5)  # from below 1, where the SDE of every schedule is finite


def test_every_step_is_tried_here():
    tried = {name.partition(",")[0] for name in STEPS}
    assert tried == {factory.__name__ for factory in sampler_module.FACTORIES}


@every_step
@every_schedule
def test_with_an_exact_denoiser_a_walk_is_the_same_on_the_device(name, step, device):
    """The noise is drawn on the CPU, so that noisy steps may be compared too."""
    x, ends = batch(6, 2), []
    for where in (device, CPU):
        denoiser = mixture_on(where).denoiser(schedule_on(where, name))
        start = x.to(where) * denoiser.schedule.sigma(spread(where, 0.9)).float()
        assert start.device.type == where.type
        ends.append(sample(step, denoiser, start, GRID, generator=seeded_on(CPU)))
    near(device, ends[0], ends[1], 1e-3 if device.type != "mps" else 1e-2)


@every_step
def test_with_a_network_and_labels_a_walk_is_the_same_on_the_device(step, device):
    there, here = on_both(device, lambda: model_of("linear"))
    walks = [
        list(trajectory(step, model, batch().to(where), GRID, LABELS.to(where), seeded_on(CPU)))
        for model, where in ((there, device), (here, CPU))
    ]
    for found, wanted in zip(*walks, strict=True):
        near(device, found.x, wanted.x, WALK)
        assert found.t.device.type == "cpu" and found.t == wanted.t
        if wanted.x_0_hat is not None:
            near(device, found.x_0_hat, wanted.x_0_hat, WALK)


@pytest.mark.parametrize("step", NOISY.values(), ids=NOISY.keys())
def test_noise_from_the_devices_generator_comes_again(step, device):
    model, labels = model_of("linear").to(device), LABELS.to(device)
    x = prior(model.schedule, SHAPE, seeded_on(device))
    a, b, c = (sample(step, model, x, GRID, labels, seeded_on(device, seed)) for seed in (0, 0, 1))
    assert a.device.type == device.type and a.isfinite().all()
    assert_close(a, b, rtol=1e-4, atol=1e-4)  # a library may choose another order of its sums
    assert (a - c).abs().mean() > 1e-3


def test_a_learnt_width_walks_the_same_on_the_device(device):
    def make():
        return LearntVarianceModel(unet(out_channels=2), BetaSchedule.linear(100), V).eval()

    there, here = on_both(device, make)
    ends = [
        sample(ancestral(learnt_std), Treated(model, clip_x_0), batch().to(where), times(4), None, seeded_on(CPU))
        for model, where in ((there, device), (here, CPU))
    ]
    near(device, *ends, WALK)


@every_schedule
def test_the_walks_upwards_and_between_are_the_same_on_the_device(name, device):
    tops, noises = [], []
    for where in (device, CPU):
        denoiser = mixture_on(where).denoiser(schedule_on(where, name))
        x_0 = batch(4, 2).to(where)
        tops.append(list(invert(denoiser, x_0, GRID, iterations=2))[-1].x)
        noises.append(list(diffuse(denoiser.schedule, x_0, 0.02 + 0.8 * GRID, seeded_on(CPU)))[-1].x)
    near(device, *tops, 1e-3)
    near(device, *noises, 1e-4 if device.type != "mps" else 1e-3)
    a, b = batch(), batch(seed=1)
    for weight in (0.3, torch.tensor([0.0, 0.2, 0.5, 1.0])):
        w = weight.to(device) if isinstance(weight, torch.Tensor) else weight
        alike(device, slerp(a.to(device), b.to(device), w), slerp(a, b, weight))


# guidance, treatment, adaptive steps


GUIDED = {
    "classifier-free": lambda model, classifier, device: ClassifierFreeGuidance(model, 3.0),
    "classifier-free, interval": lambda model, classifier, device: ClassifierFreeGuidance(
        model, 3.0, interval=(0.3, 0.8)
    ),
    "classifier-free, null": lambda model, classifier, device: ClassifierFreeGuidance(model, 3.0, null=1),
    "classifier": lambda model, classifier, device: ClassifierGuidance(model, classifier, 2.0),
    "classifier, interval": lambda model, classifier, device: ClassifierGuidance(model, classifier, 2.0, (0.3, 0.8)),
    "inpainting": lambda model, classifier, device: Inpainting(
        model, batch(seed=2).to(device), (batch(seed=3) > 0).to(device)
    ),
    "inpainting, guided": lambda model, classifier, device: Inpainting(model, batch(seed=2), batch(seed=3) > 0, 1.0),
    "clipped": lambda model, classifier, device: Treated(model, clip_x_0),
    "thresholded": lambda model, classifier, device: Treated(ClassifierFreeGuidance(model, 3.0), dynamic_threshold()),
}


@pytest.mark.parametrize("kind", GUIDED)
def test_guidance_is_the_same_on_the_device(kind, device):
    (there, here), (reads_there, reads_here) = (
        on_both(device, lambda: model_of("linear")),
        on_both(device, noisy_classifier),
    )
    found_by, wanted_by = GUIDED[kind](there, reads_there, device), GUIDED[kind](here, reads_here, CPU)
    x, labels = batch(), LABELS.to(device)
    for values in ((0.5,), (0.9,), (0.1234, 0.2718, 0.6183, 0.9)):
        wanted = wanted_by(x, spread(CPU, *values), LABELS)
        for where in (device, CPU):
            near(device, found_by(x.to(device), spread(where, *values), labels), wanted, 3 * NETWORK)
    ends = [
        sample(dpmpp_2m(), denoiser, x.to(where), GRID, LABELS.to(where))
        for denoiser, where in ((found_by, device), (wanted_by, CPU))
    ]
    near(device, *ends, WALK)


@pytest.mark.parametrize("name", ["linear", "vp", "flow"])
def test_exact_guidance_is_the_same_on_the_device(name, device):
    x, labels, answers = batch(4, 2), torch.tensor([0, 1, 1, NO_LABEL]), []
    for where in (device, CPU):
        mixture, schedule = mixture_on(where), schedule_on(where, name)
        guided = ClassifierGuidance(mixture.denoiser(schedule), mixture.classifier(schedule), 1.0)
        t = spread(where, 0.6183)
        given = mixture.denoiser(schedule)(x.to(where), t, labels.to(where))
        answers.append(guided(x.to(where), t, labels.to(where)))
        assert_close(answers[-1], given, rtol=1e-3, atol=1e-3)  # Bayes' rule
    near(device, *answers, 1e-4)


@pytest.mark.parametrize("name", ["linear", "cosine", "ve"])
def test_the_adaptive_samplers_walk_on_the_device(name, device):
    def denoiser(where):
        return mixture_on(where).denoiser(schedule_on(where, name))

    x = prior(SCHEDULES[name], (4, 2), seeded_on(CPU))
    *_, found = adaptive_ode(denoiser(device), x.to(device), 1e-3, 1e-3)
    *_, wanted = adaptive_ode(denoiser(CPU), x, 1e-3, 1e-3)
    near(device, found.x, wanted.x, 1e-2)
    assert found.t == 0 and found.evaluations > 10
    ends = [
        list(adaptive_sde(denoiser(device), x.to(device), 0.05, 0.1, sigma_min=0.02, generator=seeded_on(device)))[-1]
        for _ in range(2)
    ]
    assert ends[0].x.device.type == device.type and ends[0].x.isfinite().all() and ends[0].t == 0
    assert_close(ends[0].x, ends[1].x)


# exact answers, likelihoods, measures


@every_schedule
def test_an_exact_denoiser_is_the_same_on_the_device(name, device):
    x, t = batch(4, 2), (0.1234, 0.2718, 0.6183, 0.9)
    here = schedule_on(CPU, name)
    labels = torch.tensor([0, 1, 0, NO_LABEL])
    mixtures = {
        "moons": mixture_on,
        "one": lambda where: gaussian(torch.tensor([0.3, -0.5], device=where), torch.tensor(0.4, device=where)),
    }
    for kind, make in mixtures.items():
        there, exact = schedule_on(device, name), make(CPU)
        condition = labels if kind == "moons" else None
        wanted = exact.denoiser(here)(x, spread(CPU, *t), condition)
        condition = None if condition is None else condition.to(device)
        for mixture in (make(device), exact):  # one that was left on the CPU is brought over
            for where in (device, CPU):
                found = mixture.denoiser(there)(x.to(device), spread(where, *t), condition)
                near(device, found, wanted, 1e-4)
        moved = make(device)
        for ask in ("log_prob", "score", "responsibilities"):
            near(device, getattr(moved, ask)(x.to(device)), getattr(exact, ask)(x), 1e-4)
        drawn = moved.sample(5, seeded_on(device))
        assert drawn.device.type == device.type and torch.equal(drawn, moved.sample(5, seeded_on(device)))
        alike(device, moved.sample(5, seeded_on(CPU)), exact.sample(5, seeded_on(CPU)))
    for ask in (eps, score, velocity):
        found = ask(mixture_on(device).denoiser(there), x.to(device), spread(device, *t))
        near(device, found, ask(mixture_on(CPU).denoiser(here), x, spread(CPU, *t)), 1e-3)


@pytest.mark.parametrize("examples", ["there", "left behind", "bytes"])
@pytest.mark.parametrize("chunk", [7, 4096])
def test_the_denoiser_of_examples_is_the_same_on_the_device(examples, chunk, device):
    data, kinds = batch(30, 2, 3, seed=4), torch.arange(30) % 3
    if examples == "bytes":
        data = torch.randint(0, 256, data.shape, generator=seeded_on(CPU)).to(torch.uint8)
    here = EmpiricalDenoiser(data, schedule_on(CPU, "linear"), kinds, chunk)
    where = CPU if examples == "left behind" else device
    there = EmpiricalDenoiser(data.to(where), schedule_on(device, "linear"), kinds.to(where), chunk)
    x = batch(4, 2, 3)
    for values in ((0.2718,), (0.0513, 0.2718, 0.6183, 0.9)):
        for labels in (None, LABELS):
            wanted = here(x, spread(CPU, *values), labels)
            found = there(x.to(device), spread(device, *values), None if labels is None else labels.to(device))
            near(device, found, wanted, 1e-5 if device.type != "mps" else 1e-3)


def test_the_bound_is_the_same_on_the_device(device):
    there, here = on_both(device, lambda: model_of("linear"))
    x_0 = batch().tanh()
    bounds = [
        elbo(model, x_0.to(where), times(5), transition_std, condition=LABELS.to(where), generator=seeded_on(CPU))
        for model, where in ((there, device), (here, CPU))
    ]
    for part in ("prior", "diffusion", "reconstruction", "total"):
        near(device, *(getattr(bound, part) for bound in bounds), 3 * NETWORK)
    own = [
        elbo(there, x_0.to(device), times(5), condition=LABELS.to(device), generator=seeded_on(device)).total
        for _ in range(2)
    ]
    assert own[0].isfinite().all() and own[0].device.type == device.type
    assert_close(*own, rtol=1e-3, atol=1e-2)


def test_the_bound_of_pixels_is_the_same_on_the_device(device):
    x_0 = (torch.randint(0, 256, SHAPE, generator=seeded_on(CPU)) / 127.5 - 1).float()
    q = [Normal(0.9 * x_0.to(where), torch.full(SHAPE, 0.05, device=where)) for where in (device, CPU)]
    try:
        found = discretized_log_prob(q[0], x_0.to(device))
    except NotImplementedError as missing:
        pytest.skip(f"PyTorch lacks it on {device.type}: {str(missing)[:80]}")
    near(device, found, discretized_log_prob(q[1], x_0), 1e-4)
    there, here = on_both(device, lambda: model_of("linear"))
    found, wanted = (
        elbo(model, x.to(where), times(3), decoder=pixel_decoder(), generator=seeded_on(CPU)).reconstruction
        for model, x, where in ((there, x_0, device), (here, x_0, CPU))
    )
    near(device, found, wanted, 1e-2)
    moved = dequantize(x_0.to(device), seeded_on(device))
    assert moved.device.type == device.type and (moved.cpu() - x_0).abs().max() <= 1 / 255 + 1e-6
    alike(device, dequantize(x_0.to(device), seeded_on(CPU)), dequantize(x_0, seeded_on(CPU)))


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_likelihood_of_the_ode_is_the_same_on_the_device(name, device):
    x_0, found = batch(3, 2), {}
    for where in (device, CPU):
        denoiser = mixture_on(where).denoiser(schedule_on(where, name))
        tolerance = {"atol": 1e-3, "rtol": 1e-3, "sigma_min": 1e-2}
        exact = log_likelihood(denoiser, x_0.to(where), **tolerance)
        probed = log_likelihood(denoiser, x_0.to(where), generator=seeded_on(CPU), probes=2, **tolerance)
        assert exact.shape == (3,) and exact.device.type == where.type
        found[where.type] = exact, probed
    for a, b in zip(found[device.type], found["cpu"], strict=True):
        alike(device, a, b, 1e-2, 5e-2)
    denoiser = mixture_on(device).denoiser(schedule_on(device, name))
    own = log_likelihood(denoiser, x_0.to(device), generator=seeded_on(device), probes=1, **tolerance)
    assert own.device.type == device.type and own.isfinite().all()


MEASURES = {
    "frechet": frechet_distance,
    "kid": kid,
    "mmd": mmd,
    "energy": energy_distance,
    "median": median_distance,
    "regions": precision_recall,
    "memorisation": lambda a, b: memorisation(a, b, b + 0.1),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
def test_a_measure_takes_features_from_the_device(measure, device):
    a, b = batch(40, 5), 0.3 + batch(50, 5, seed=1)
    wanted = measure(a, b)
    for found in (measure(a.to(device), b.to(device)), measure(a.to(device), b)):
        assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-6, atol=1e-7)
    assert torch.tensor(wanted).isfinite().all()


def test_neighbours_floors_and_readings_take_samples_from_the_device(device):
    a, b = batch(20, 5), batch(30, 5, seed=1)
    found, wanted = nearest(a.to(device), b.to(device), 3), nearest(a, b, 3)
    assert torch.equal(found.indices, wanted.indices)
    assert_close(found.distances, wanted.distances)
    copies = nearest(b[:4].to(device), b.to(device))
    assert (copies.distances == 0).all() and copies.indices[:, 0].tolist() == [0, 1, 2, 3]
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    assert_close(
        with_floor(frechet_distance, a.to(device), b.to(device), generator=next(generators)).floor,
        with_floor(frechet_distance, a, b, generator=next(generators)).floor,
    )
    there, here = on_both(device, digit_classifier)
    pictures = batch(6, 1, 28, 28).tanh()
    with torch.no_grad():
        (features, labels), (wanted_features, wanted_labels) = (
            predict(model, pictures.to(where)) for model, where in ((there, device), (here, CPU))
        )
    near(CPU, features, wanted_features, NETWORK)
    assert labels.shape == wanted_labels.shape and labels.device.type == "cpu"


# networks


def answer(net, where, shape=(2, 1, 12, 12), memory_format=torch.contiguous_format, dtype=torch.float32):
    x, level = batch(*shape).to(where, dtype).contiguous(memory_format=memory_format), torch.tensor([0.25, 0.75])
    with torch.no_grad():
        return net(x, level.to(where, dtype), LABELS[:2].to(where))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["plain", "last"])
@pytest.mark.parametrize("options", [{}, {"patch": 2}, {"attention": (True, True)}, {"channels": (8, 8, 8)}], ids=str)
@pytest.mark.parametrize("shape", [(2, 1, 12, 12), (2, 1, 7, 13)], ids=["even", "odd"])
def test_the_unet_says_the_same_on_the_device(shape, options, memory_format, device):
    there, here = on_both(device, lambda: unet(**options))
    found = answer(there.to(memory_format=memory_format), device, shape, memory_format)
    near(device, found, answer(here, CPU, shape), NETWORK)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["plain", "last"])
def test_under_autocast_the_unet_stays_near_float32(memory_format, device):
    there, here = on_both(device, unet)
    there = there.to(memory_format=memory_format)
    with torch.autocast(device.type, torch.bfloat16):
        found = answer(there, device, memory_format=memory_format)
    near(device, found, answer(here, CPU), 3e-2)
    assert not torch.equal(found.float(), answer(there, device, memory_format=memory_format))
    model = DiffusionModel(there, CosineSchedule(), V).eval()
    with torch.autocast(device.type, torch.bfloat16):
        end = sample(ddim(), model, batch().to(device), GRID, LABELS.to(device))
    assert end.dtype == torch.float32 and end.isfinite().all() and end.device.type == device.type


@pytest.mark.parametrize(("dtype", "within"), [(torch.half, 0.02), (torch.bfloat16, 0.1)], ids=["half", "bfloat16"])
def test_the_unet_in_half_precision_stays_near_float32(dtype, within, device):
    there, here = on_both(device, unet)
    found = answer(there.to(dtype), device, dtype=dtype)
    near(device, found, answer(here, CPU), within)
    assert found.dtype == dtype
    model = DiffusionModel(there, BetaSchedule.linear(100).to(device), V).eval()
    end = sample(dpmpp_2m(), model, batch().to(device, dtype), times(3), LABELS.to(device))
    assert end.dtype == dtype and end.isfinite().all() and end.device.type == device.type


@pytest.mark.filterwarnings("ignore")  # the compiler has advice to give, of TF32 and of the number of processors
def test_a_compiled_unet_says_the_same_on_the_device(device):
    if device.type != "cuda":
        pytest.skip("a GPU's compiler is asked; tests/test_trainer.py compiles without one")
    there, here = on_both(device, unet)
    compiled = torch.compile(there)
    near(device, answer(compiled, device), answer(here, CPU), NETWORK)
    model = DiffusionModel(compiled, CosineSchedule(), V).eval()
    wanted = sample(ddim(), DiffusionModel(here, CosineSchedule(), V).eval(), batch(), GRID, LABELS)
    near(device, sample(ddim(), model, batch().to(device), GRID, LABELS.to(device)), wanted, WALK)


# training


def points_trainer(where, loss=denoising_loss, folder=None, **options):
    torch.manual_seed(0)
    model = DiffusionModel(ResidualMLP(2, 32, 2), BetaSchedule.linear(100), V)
    settings = {"steps": 60, "batch_size": 64, "learning_rate": 5e-3, "log_every": 10, "device": where.type}
    data = Fresh(GaussianMixture(*moons(std=0.05)).sample)
    return Trainer(model, data, loss, TrainConfig(**{**settings, **options}), folder=folder)


def pictures_trainer(where, loss=denoising_loss, schedule=None, folder=None, dropout=0.0, **options):
    torch.manual_seed(0)
    net = UNet(channels=(8, 12), blocks=1, num_classes=3, embedding=16, heads=2, dropout=dropout)
    model = DiffusionModel(net, CosineSchedule() if schedule is None else schedule, V)
    settings = {"steps": 8, "batch_size": 8, "log_every": 1, "learning_rate": 3e-3, "device": where.type}
    data = TensorData(batch(30, 1, 8, 8), torch.arange(30) % 3)
    return Trainer(model, data, loss, TrainConfig(**{**settings, **options}), folder=folder)


def told(model, x_0, t, *, condition, eps):
    """The loss at times and noise that depend on no device's generator."""
    noise = batch(*x_0.shape, seed=5).to(x_0.device)
    t = torch.linspace(0.05, 0.95, len(x_0), dtype=t.dtype).to(t.device)
    return denoising_loss(model, x_0, t, condition=condition, eps=noise)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_the_loss_goes_down_on_the_device(precision, device):
    torch.manual_seed(0)
    model = DiffusionModel(ResidualMLP(2, 32, 2), CosineSchedule(), V)
    config = TrainConfig(
        steps=60, batch_size=64, learning_rate=1e-2, log_every=20, device=device.type, precision=precision
    )
    trainer = Trainer(model, TensorData(torch.tensor([[1.0, -1.0]])), config=config)  # one point, learnt by heart
    losses = [progress.loss for progress in trainer]
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < 0.2 * losses[0]
    for part in (trainer.model, trainer.ema):
        assert {p.device.type for p in part.parameters()} == {device.type}
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    found = sample(ddim(), trainer.ema, prior(model.schedule, (64, 2), seeded_on(device)), times(10))
    assert found.device.type == device.type and found.isfinite().all()


@pytest.mark.parametrize("make", [points_trainer, pictures_trainer], ids=["points", "pictures"])
def test_told_the_same_noise_training_is_the_same_on_the_device(make, device):
    options = {"steps": 8, "batch_size": 8, "log_every": 1, "label_drop": 0.0}
    found, wanted = ([p.loss for p in make(where, told, **options)] for where in (device, CPU))
    assert_close(found, wanted, rtol=1e-2, atol=1e-3)
    assert len(set(found)) == 8


def test_a_batch_in_two_parts_has_the_losses_of_one_on_the_device(device):
    whole, parts = ([p.loss for p in pictures_trainer(device, accumulate=n, label_drop=0.2)] for n in (1, 2))
    assert_close(parts, whole, rtol=1e-2, atol=1e-3)
    near(CPU, torch.tensor(parts[:1]), torch.tensor(whole[:1]), 2 * NETWORK)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_of_the_device_goes_on_there_and_on_the_cpu(precision, device, tmp_path):
    options = {"label_drop": 0.0, "precision": precision}
    straight = [p.loss for p in pictures_trainer(device, told, **options)]
    half = pictures_trainer(device, told, folder=tmp_path, **options)
    for progress in half:
        if progress.step == 4:
            break
    for where in (device, CPU):
        resumed = pictures_trainer(where, told, **options).resume(tmp_path)
        assert resumed.step == 4
        for mine, its in zip(resumed.model.parameters(), half.model.parameters(), strict=True):
            assert mine.device.type == where.type and torch.equal(mine.cpu(), its.cpu())
        for mine, its in zip(resumed.ema.parameters(), half.ema.parameters(), strict=True):
            assert torch.equal(mine.cpu(), its.cpu())
        assert_close([p.loss for p in resumed], straight[4:], rtol=1e-2 if precision == "fp32" else 5e-2, atol=2e-3)


def test_a_run_resumed_on_the_device_has_the_draws_of_a_straight_one(device, tmp_path):
    straight = [p.loss for p in pictures_trainer(device)]
    for progress in pictures_trainer(device, folder=tmp_path):
        if progress.step == 4:
            break
    resumed = pictures_trainer(device).resume(tmp_path)
    torch.manual_seed(999)  # whatever the new process has drawn by now
    assert_close([p.loss for p in resumed], straight[4:], rtol=1e-2, atol=1e-3)


def test_a_classifier_and_a_learnt_variance_are_trained_on_the_device(device):
    torch.manual_seed(0)
    data = TensorData(batch(30, 1, 8, 8), torch.arange(30) % 3)
    config = TrainConfig(steps=3, batch_size=6, log_every=1, device=device.type)
    classifier = NoisyClassifier(LevelClassifier(1, 3, (4, 8)), CosineSchedule())
    net = UNet(channels=(8,), blocks=1, num_classes=3, embedding=16, heads=2, out_channels=2)
    learnt = LearntVarianceModel(net, BetaSchedule.linear(100), EPS)
    for model, loss in ((classifier, classifier_loss), (learnt, hybrid_loss)):
        trainer = Trainer(model, data, loss, config, times=log_normal(model.schedule))
        before = [p.clone() for p in model.parameters()]
        assert all(math.isfinite(p.loss) for p in trainer)
        assert any(not torch.equal(a, b.to(a.device)) for a, b in zip(model.parameters(), before, strict=True))
        assert {p.device.type for p in trainer.ema.parameters()} == {device.type}


# the device is never waited for


def without_waiting(what):
    """Runs it; whatever would wait for the GPU is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        return what()
    finally:
        torch.cuda.set_sync_debug_mode("default")


never_waits = pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # PyTorch calls its mode a prototype


@never_waits
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_between_two_reports_training_never_waits_for_the_device(name, precision, accumulate, device):
    if device.type != "cuda":
        pytest.skip("only CUDA can say what waits; tests/test_meta.py takes such a step on a stand-in")
    options = {"dropout": 0.1, "precision": precision, "accumulate": accumulate, "label_drop": 0.2, "steps": 100}
    trainer = pictures_trainer(device, schedule=schedule_on(CPU, name), **options)
    for _ in range(2):  # the first steps make what later ones have
        trainer._train_step(trainer._batches(trainer.step))
    losses = without_waiting(lambda: [trainer._train_step(trainer._batches(trainer.step)) for _ in range(4)])
    assert torch.stack(losses).isfinite().all() and trainer.step == 6 and trainer._average.n_averaged == 6


@never_waits
@every_step
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_between_its_ends_a_walk_never_waits_for_the_device(name, step, device):
    if device.type != "cuda":
        pytest.skip("only CUDA can say what waits; nothing can be read from meta, where tests/test_meta.py walks")
    model, labels = model_of(name).to(device), LABELS.to(device)
    x = prior(model.schedule, SHAPE, seeded_on(device))
    sample(step, model, x, GRID, labels, seeded_on(device))
    walk = trajectory(step, model, x, GRID, labels, seeded_on(device))
    next(walk)  # what is asked at the door is asked once
    states = without_waiting(lambda: list(walk))
    assert states[-1].x.isfinite().all() and states[-1].t == 0


@never_waits
@pytest.mark.parametrize("kind", ["classifier-free", "classifier-free, interval", "classifier", "thresholded"])
def test_a_guided_walk_never_waits_for_the_device(kind, device):
    if device.type != "cuda":
        pytest.skip("only CUDA can say what waits; nothing can be read from meta, where tests/test_meta.py walks")
    guided = GUIDED[kind](model_of("linear").to(device), noisy_classifier().to(device), device)
    x, labels = batch().to(device), LABELS.to(device)
    sample(ddim(), guided, x, GRID, labels)
    walk = trajectory(ddim(), guided, x, GRID, labels)
    next(walk)
    assert without_waiting(lambda: list(walk))[-1].x.isfinite().all()


# what comes with the package


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_shipped_model_draws_the_same_on_the_device(name, device):
    there, here = on_both(device, lambda: load_run(name)[0])
    x, labels = prior(here.schedule, (4, 1, 28, 28), seeded_on(CPU)), torch.tensor([3, 7, 1, NO_LABEL])
    found, wanted = (
        sample(dpmpp_2m(), Treated(model, clip_x_0), x.to(where), times(10), labels.to(where))
        for model, where in ((there, device), (here, CPU))
    )
    assert found.device.type == device.type and found.isfinite().all()
    assert (found.cpu() - wanted).abs().mean() < 1e-2
    assert wanted.std() > 0.3, "a picture, and not grey"


def test_the_shipped_classifier_guides_on_the_device(device):
    there, here = on_both(device, noisy_digit_classifier)
    x, labels = batch(3, 1, 28, 28), torch.tensor([3, 7, NO_LABEL])
    found, wanted = (
        ClassifierGuidance(load_run("mnist")[0].to(where), classifier, 2.0)(
            x.to(where), spread(CPU, 0.5), labels.to(where)
        )
        for classifier, where in ((there, device), (here, CPU))
    )
    near(device, found, wanted, 3 * NETWORK)


def test_a_model_comes_back_from_the_device_as_it_was(device):
    model = DiffusionModel(unet(), BetaSchedule.linear(100), V)
    before = copy.deepcopy(model.state_dict())
    model.to(device).to(CPU)
    after = model.state_dict()
    digits = {"rtol": 1e-6, "atol": 1e-7} if device.type == "mps" else {"rtol": 0, "atol": 0}
    for key, value in before.items():
        assert_close(after[key], value, **digits)
    assert isinstance(model.network, nn.Module) and VPSchedule().to(device).state_dict() == {}

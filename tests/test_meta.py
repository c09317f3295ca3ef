"""Everything on the meta device, which has shapes and no numbers: a tensor left behind on the CPU fails here."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    SCORE,
    VELOCITY,
    X0,
    BetaSchedule,
    Classifier,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    EmpiricalDenoiser,
    FlowSchedule,
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
    UNet,
    V,
    ancestral,
    annealed_langevin,
    classifier_loss,
    corrected,
    ddim,
    denoising_loss,
    dequantize,
    diffuse,
    discretized_log_prob,
    dpmpp_2m,
    edm,
    edm_weight,
    elbo,
    elbo_weight,
    energy_distance,
    euler,
    euler_maruyama,
    frechet_distance,
    frechet_estimate,
    heun,
    hybrid_loss,
    invert,
    kid,
    learnt_std,
    log_normal,
    median_distance,
    min_snr,
    mmd,
    moons,
    nearest,
    posterior_kl,
    precision_recall,
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
    uniform,
)
from diffusion_edu import trainer as trainer_module
from diffusion_edu.analytic import gaussian
from diffusion_edu.cli import find_recipe, read_recipe
from diffusion_edu.likelihood import velocity_and_divergence
from diffusion_edu.ode import DORMAND_PRINCE, attempt, rms
from tests.cases import SCHEDULES, Crossings, LikeMPS, awake, schedule_on

META = torch.device("meta")
SHAPE = (4, 1, 12, 12)


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return schedule_on(META, request.param)


def noise(shape=SHAPE):
    return torch.randn(shape, device=META)


def t(value=0.7):
    return torch.full((4,), value, dtype=torch.float64, device=META)


def check(*tensors, shape=SHAPE):
    assert all(x.is_meta and x.shape == shape for x in tensors)


def test_the_processes(schedule):
    x_0, x_t = noise(), noise()
    check(q_sample(schedule, x_0, t(), noise()), prior(schedule, SHAPE, device=META))
    for q in (
        q_marginal(schedule, x_0, t()),
        q_transition(schedule, x_0, t(0.3), t()),
        q_posterior(schedule, x_t, x_0, t(0.3), t()),
    ):
        check(q.mean, q.sample(), q.log_prob(x_0), q.kl(Normal(x_0, torch.ones(SHAPE, device=META))))
    check(posterior_kl(schedule, x_0, torch.ones(SHAPE, device=META), t(0.3), t()))
    early, late = torch.full((4,), 0.3), torch.full((4,), 0.7)  # times come from the CPU, where samplers draw them
    check(q_posterior(schedule, x_t, x_0, early, late).mean, q_transition(schedule, x_0, early, late).mean)
    check(discretized_log_prob(Normal(x_0, torch.ones(SHAPE, device=META)), x_0))


@pytest.mark.parametrize("row", [X0, EPS, V, SCORE, VELOCITY, edm()], ids=lambda row: row.name)
def test_the_parameterisations_and_the_loss(schedule, row):
    x_0, eps = noise(), noise()
    o = row.target(schedule, x_0, eps, t())
    check(o, row.x_0(schedule, o, x_0, t()), row.eps(schedule, o, x_0, t()))
    net = UNet(channels=(4, 8), blocks=1, num_classes=3, embedding=16, heads=2).to(META)
    if row in (EPS, SCORE) and isinstance(schedule, CosineSchedule | FlowSchedule):
        with pytest.raises(ValueError, match="V or VELOCITY"):
            DiffusionModel(net, schedule, row)
        return
    model = DiffusionModel(net, schedule, row)
    for weight in (None, simple, min_snr()):
        loss = denoising_loss(model, x_0, t(), weight, torch.zeros(4, dtype=torch.long, device=META), eps)
        check(loss, shape=(4,))
    loss.sum().backward()


STEPS = [ancestral(), ddim(), ddim(0.5), euler(), heun(), euler_maruyama(), dpmpp_2m()]
STEPS += [corrected(ddim()), annealed_langevin(2), resampled(ancestral(), 2)]


class Plain(nn.Module):
    """A network of one convolution: what is looked at is what a sampler does around it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, device=META)

    def forward(self, x, level, condition=None):
        return self.conv(x) * level.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("step", STEPS)
def test_the_samplers_and_that_none_of_their_steps_waits_for_the_device(schedule, step):
    model = DiffusionModel(Plain(), schedule, V).eval()
    if isinstance(schedule, CosineSchedule | BetaSchedule):  # one without a table and one with
        model = ClassifierFreeGuidance(model, 2.0, interval=(0.2, 0.8))
    labels = torch.zeros(4, dtype=torch.long, device=META)
    # below 1, where the SDE of every schedule is finite
    walk = trajectory(step, model, noise(), 0.9 * times(3), labels)
    next(walk)  # what is asked at the door is asked once
    with Crossings() as crossings:
        check(*(state.x for state in walk))
    assert crossings.waiting == []


def test_what_was_left_on_the_cpu_comes_over_without_waiting(schedule):
    mixture = GaussianMixture(*moons())
    examples, kinds = torch.rand(10, 2), torch.arange(10) % 2
    x, labels = noise((4, 2)), torch.zeros(4, dtype=torch.long, device=META)
    model, known = DiffusionModel(Plain(), schedule, V).eval(), torch.zeros(SHAPE)
    with Crossings() as crossings:
        check(mixture.denoiser(schedule)(x, torch.tensor(0.5), labels), shape=(4, 2))
        check(EmpiricalDenoiser(examples, schedule, kinds, chunk=4)(x, torch.tensor(0.5), labels), shape=(4, 2))
        check(Inpainting(model, known, known > 0)(noise(), torch.tensor(0.5)))
    assert crossings.waiting == []


def test_a_learnt_variance():
    schedule = BetaSchedule.linear(100).to(META)
    net = UNet(channels=(4, 8), blocks=1, embedding=16, heads=2, out_channels=2).to(META)
    model = LearntVarianceModel(net, schedule, EPS)
    check(hybrid_loss(model, noise(), t()), hybrid_loss(model, noise(), torch.full((4,), 0.7)), shape=(4,))
    check(sample(ancestral(learnt_std), model.eval(), noise(), times(3)))


def test_the_exact_denoisers(schedule):
    x_t = noise((4, 2))
    mixture = GaussianMixture(*(part.to(META) for part in moons()))
    check(mixture.denoiser(schedule)(x_t, t()), mixture.score(x_t), shape=(4, 2))
    check(gaussian(noise((2,)), noise((2,))).denoiser(schedule)(x_t, t()), shape=(4, 2))
    check(mixture.log_prob(x_t), shape=(4,))
    check(EmpiricalDenoiser(noise((9, 2)), schedule)(x_t, t()), shape=(4, 2))


def test_the_classifier():
    check(Classifier().to(META)(noise((4, 1, 28, 28))), shape=(4, 10))


def test_the_walks_upwards_and_between(schedule):
    *_, top = invert(DiffusionModel(Plain(), schedule, V).eval(), noise(), 0.9 * times(3), iterations=2)
    *_, end = diffuse(schedule, noise(), 0.9 * times(3))
    check(top.x, end.x, slerp(noise(), noise(), 0.3), slerp(noise(), noise(), t()))


def test_guidance(schedule):
    net = UNet(channels=(4, 8), blocks=1, num_classes=3, embedding=16, heads=2).to(META)
    model = DiffusionModel(net, schedule, V).eval()
    classifier = NoisyClassifier(LevelClassifier(1, 3, (4, 8)).to(META), schedule).eval()
    labels = torch.zeros(4, dtype=torch.long, device=META)
    check(classifier(noise(), t()), shape=(4, 3))
    check(classifier_loss(classifier, noise(), t(), condition=labels), shape=(4,))
    for interval in ((0.0, 1.0), (0.2, 0.8)):
        check(ClassifierFreeGuidance(model, 2.0, interval=interval)(noise(), t(), labels))
        check(ClassifierGuidance(model, classifier, 2.0, interval)(noise(), t(), labels))
        early = torch.full((4,), 0.1, dtype=torch.float64)  # each example's time, from the CPU
        check(ClassifierGuidance(model, classifier, 2.0, interval)(noise(), early, labels))
    for scale in (0.0, 1.0):
        check(Inpainting(model, noise(), noise() > 0, scale)(noise(), t()))


def test_what_an_adaptive_solver_computes_between_its_questions_to_the_device(schedule):
    # whether a step was good enough is a question to the device, which meta cannot answer; the step itself is computed
    model = DiffusionModel(Plain(), schedule, V).eval()
    for probes in (None, noise((2, *SHAPE))):
        if probes is None:
            small = GaussianMixture(*(part.to(META) for part in moons())).denoiser(schedule)
            v, divergence = velocity_and_divergence(small, noise((4, 2)), t())
            check(v, shape=(4, 2))
        else:
            v, divergence = velocity_and_divergence(model, noise(), t(), None, probes)
            check(v)
        check(divergence, shape=(4,))

    def slope(u, y):
        return velocity_and_divergence(model, y.reshape(SHAPE), t(u), None, probes)[0].flatten(1)

    y = noise().flatten(1)
    check(*attempt(DORMAND_PRINCE, slope, 0.6, y, -0.1, slope(0.6, y)), shape=y.shape)
    check(rms(y), shape=(4,))
    check(dequantize(noise()))


# Training, the bound, and what needs numbers


class GeneratorOnMeta(torch.Generator):
    """One of the CPU that says that it is on meta, which has none of its own."""

    device = META

    def __new__(cls, device=None):
        return super().__new__(cls)


def meta_trainer(monkeypatch, schedule, row, times_of, weight, accumulate=1):
    """A trainer on meta. AdamW's fused kernels and generators are not made for it; all else is as it is."""
    AdamW = torch.optim.AdamW
    monkeypatch.setattr(trainer_module, "device_named", lambda name, found=None: META)
    monkeypatch.setattr(torch, "Generator", GeneratorOnMeta)
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda ps, lr, weight_decay, fused: AdamW(ps, lr, weight_decay=weight_decay)
    )
    net = UNet(channels=(4, 8), blocks=1, num_classes=3, embedding=16, heads=2, dropout=0.1)
    model = DiffusionModel(net, schedule, row)
    data = TensorData(torch.randn(8, 1, 8, 8), torch.arange(8) % 3)
    config = TrainConfig(batch_size=4, steps=3, accumulate=accumulate)
    loss = functools.partial(denoising_loss, weight=weight)
    return Trainer(model, data, loss, config, times=times_of(model.schedule))


TIMES = {
    "uniform": lambda schedule: uniform,
    "stratified": lambda schedule: stratified,
    "log_normal": log_normal,
    "importance": lambda schedule: Importance(torch.tensor([1.0, 3.0, 2.0])),
}
WEIGHTS = {"none": None, "simple": simple, "min_snr": min_snr(), "elbo": elbo_weight, "edm": edm_weight()}
ROWS = {"v": V, "edm": edm()}
COMBINATIONS = [(name, "linear", "v", "none") for name in TIMES] + [("stratified", "linear", "v", w) for w in WEIGHTS]
COMBINATIONS += [("log_normal", "cosine", "v", "elbo"), ("importance", "edm", "v", "edm")]
COMBINATIONS += [("log_normal", "edm", "edm", "edm")]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("drawn", "name", "row", "weight"), COMBINATIONS, ids=str)
def test_a_training_step_never_waits_for_the_device(drawn, name, row, weight, accumulate, monkeypatch):
    schedule = copy.deepcopy(SCHEDULES[name])
    trainer = meta_trainer(monkeypatch, schedule, ROWS[row], TIMES[drawn], WEIGHTS[weight], accumulate)
    trainer._train_step(trainer._batches(trainer.step))
    with Crossings() as crossings:
        loss = trainer._train_step(trainer._batches(trainer.step))
    check(loss, shape=())
    assert crossings.waiting == [] and trainer.step == 2
    assert all(p.is_meta and p.grad is not None and p.grad.is_meta for p in trainer.model.parameters())
    assert all(x.is_meta for x in trainer.ema.state_dict().values())


def test_what_cifar10_trains_with_is_among_them():
    recipe = read_recipe(find_recipe("cifar10"))
    assert (recipe.loss.times, recipe.model.schedule, recipe.model.predict, recipe.loss.weight) in COMBINATIONS


def test_the_weights_of_a_loss(schedule):
    for weight in (simple, elbo_weight, min_snr(), edm_weight()):
        check(weight(schedule, t()), shape=(4,))
    early = torch.full((4,), 0.3, dtype=torch.float64)  # from the CPU: a table goes where it is
    for weight in (simple, elbo_weight):
        assert weight(schedule, early).shape == (4,)


def test_the_bound(schedule):
    model = DiffusionModel(Plain(), schedule, V).eval()
    with Crossings() as crossings:
        found = elbo(model, noise(), times(3))
    check(found.total, shape=(4,))
    assert crossings.waiting == []


@pytest.mark.parametrize(
    "measure",
    [frechet_distance, frechet_estimate, kid, mmd, energy_distance, precision_recall, median_distance, nearest],
)
def test_a_measure_refuses_meta_because_it_gives_numbers(measure):
    with pytest.raises(TypeError, match=f"{measure.__name__} got .* on meta.*not on meta"):
        measure(noise((8, 2)), noise((8, 2)))


# A stand-in for MPS, which has no float64


MPS = torch.device("mps")
DETERMINISTIC = {"ddim": ddim(), "euler": euler(), "heun": heun(), "dpmpp_2m": dpmpp_2m()}
RANDOM = {"ancestral": ancestral(), "euler_maruyama": euler_maruyama(), "corrected": corrected(ddim())}
RANDOM |= {"langevin": annealed_langevin(2), "resampled": resampled(ancestral(), 2)}
LABELS = torch.tensor([0, 1, 0, 1])
NEAR = {"rtol": 1e-3, "atol": 1e-4}


def on_mps(make):
    """What ``make(device)`` gives on the CPU and on the stand-in, whose numbers must be near."""
    wanted = make(torch.device("cpu"))
    with LikeMPS():
        found = make(MPS)
        assert all(x.device.type == "mps" and x.dtype != torch.float64 for x in found)
    for x, y in zip(found, wanted, strict=True):
        assert_close(x.detach().held.double(), y.detach().double(), **NEAR)


def test_the_stand_in_refuses_what_mps_has_not():
    with LikeMPS():
        x = torch.ones(3, device=MPS)
        assert (x + 1).device.type == "mps" and (x + torch.tensor(1.0)).tolist() == [2, 2, 2]
        for wrong in (
            lambda: x.double(),
            lambda: torch.zeros(2, dtype=torch.float64, device=MPS),
            lambda: torch.zeros(2, dtype=torch.float64).to(MPS),
            lambda: x + torch.ones(3),
            lambda: torch.take(x, torch.zeros(1, dtype=torch.long, device=MPS)),
        ):
            with pytest.raises(AssertionError, match="MPS"):
                wrong()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_needs_no_float64_on_mps(name):
    def asked(device):
        schedule = schedule_on(device, name)
        assert all(b.device.type == device.type for b in schedule.buffers())
        t = torch.tensor([[0.12345, 0.34567], [0.52468, 0.87654]], device=device)  # between the nodes of a table
        rates = schedule.rates(t)
        return (
            schedule.alpha(t),
            schedule.sigma(t),
            schedule.time_at(schedule.log_snr(t)),
            *rates,
            schedule.diffusion(t),
        )

    on_mps(asked)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_loss_and_its_gradient_need_no_float64_on_mps(name):
    x_0, eps = torch.randn(2, 4, 2)
    net = awake(ResidualMLP(2, 8, 1))

    def step(device):
        model = DiffusionModel(copy.deepcopy(net).to(device), schedule_on(device, name), V)
        t = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)  # as a caller's times come, from the CPU
        weights = (None, simple, min_snr(), elbo_weight, edm_weight())
        losses = [denoising_loss(model, x_0.to(device), t, weight, eps=eps.to(device)) for weight in weights]
        torch.stack(losses).mean().backward()
        return *losses, *(p.grad for p in model.parameters())

    on_mps(step)


def test_a_unet_needs_no_float64_on_mps():
    x_0, eps = torch.randn(2, 4, 1, 8, 8)
    net = awake(UNet(channels=(4, 8), blocks=1, num_classes=3, embedding=16, heads=2))

    def step(device):
        model = DiffusionModel(copy.deepcopy(net).to(device), schedule_on(device, "linear"), V)
        t = torch.tensor([0.2, 0.4, 0.6, 0.8], device=device)
        loss = denoising_loss(model, x_0.to(device), t, None, LABELS.to(device), eps.to(device))
        loss.mean().backward()
        return loss, *(p.grad for p in model.parameters())

    on_mps(step)


def test_a_learnt_variances_loss_needs_no_float64_on_mps():
    x_0, eps = torch.randn(2, 4, 1, 8, 8)
    net = awake(UNet(channels=(4, 8), blocks=1, embedding=16, heads=2, out_channels=2))

    def step(device):
        model = LearntVarianceModel(copy.deepcopy(net).to(device), schedule_on(device, "linear"), EPS)
        t = torch.tensor([0.0005, 0.4, 0.6, 0.8], device=device)
        return (hybrid_loss(model, x_0.to(device), t, eps=eps.to(device)),)

    on_mps(step)


class GeneratorOnMPS(torch.Generator):
    """One of the CPU that says where it is."""

    device = MPS


def test_times_are_drawn_without_float64_on_mps():
    for sampler in (uniform, stratified, log_normal(EDMSchedule()), Importance(torch.tensor([1.0, 2.0, 3.0]))):
        with LikeMPS():
            t = sampler(50, GeneratorOnMPS().manual_seed(0))
            assert t.device.type == "mps" and t.dtype == torch.float32
            if isinstance(sampler, Importance):
                assert sampler.factor(t).device.type == "mps"
        assert t.held.min() > 0 and t.held.max() <= 1


@pytest.mark.parametrize("name", ["linear", "edm"])
def test_the_walks_need_no_float64_on_mps(name):
    x = torch.randn(4, 2)
    net = awake(ResidualMLP(2, 8, 1, num_classes=3)).eval()

    def model(device):
        guided = DiffusionModel(copy.deepcopy(net).to(device), schedule_on(device, name), V).eval()
        return ClassifierFreeGuidance(guided, 2.0, interval=(0.2, 0.8))

    for step in DETERMINISTIC.values():
        on_mps(lambda at, step=step: [sample(step, model(at), x.to(at), 0.9 * times(3), LABELS.to(at))])
    on_mps(lambda at: [list(invert(model(at), x.to(at), 0.9 * times(3), LABELS.to(at)))[-1].x])
    with LikeMPS():
        for step in RANDOM.values():
            found = sample(step, model(MPS), x.to(MPS), 0.9 * times(3), LABELS.to(MPS))
            assert found.device.type == "mps" and found.dtype == torch.float32
        assert prior(schedule_on(MPS, name), (4, 2), device=MPS).device.type == "mps"


@pytest.mark.parametrize("name", ["linear", "edm"])
def test_guidance_and_exact_denoisers_need_no_float64_on_mps(name):
    x, known, t = torch.randn(4, 1, 8, 8), torch.zeros(4, 1, 8, 8), torch.tensor(0.5, dtype=torch.float64)
    net = awake(UNet(channels=(4, 8), blocks=1, num_classes=3, embedding=16, heads=2)).eval()
    judge = awake(LevelClassifier(1, 3, (4, 8))).eval()
    examples = (255 * torch.rand(9, 1, 8, 8)).to(torch.uint8)
    numbers = [part.float() if part.is_floating_point() else part for part in moons()]

    def asked(device):
        schedule = schedule_on(device, name)
        model = DiffusionModel(copy.deepcopy(net).to(device), schedule, V).eval()
        classifier = NoisyClassifier(copy.deepcopy(judge).to(device), schedule).eval()
        here, labels = x.to(device), LABELS.to(device)
        mixture = GaussianMixture(*(part.to(device) for part in numbers))
        return (
            ClassifierGuidance(model, classifier, 2.0)(here, t, labels),
            Inpainting(model, known.to(device), known.to(device) == 0)(here, t, labels),
            EmpiricalDenoiser(examples, schedule, chunk=4)(here, t),
            mixture.denoiser(schedule)(here.flatten(1)[:, :2], t),
            classifier_loss(classifier, here, t, condition=labels, eps=here),
        )

    on_mps(asked)

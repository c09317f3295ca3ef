"""Everything on the meta device, which has shapes and no numbers: a tensor left behind on the CPU fails here."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

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
    EmpiricalDenoiser,
    FlowSchedule,
    GaussianMixture,
    Inpainting,
    LearntVarianceModel,
    LevelClassifier,
    NoisyClassifier,
    Normal,
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
    euler,
    euler_maruyama,
    heun,
    hybrid_loss,
    invert,
    learnt_std,
    min_snr,
    moons,
    posterior_kl,
    prior,
    q_marginal,
    q_posterior,
    q_sample,
    q_transition,
    resampled,
    sample,
    simple,
    slerp,
    times,
    trajectory,
)
from diffusion_edu.analytic import gaussian
from diffusion_edu.likelihood import velocity_and_divergence
from diffusion_edu.ode import DORMAND_PRINCE, attempt, rms
from tests.cases import SCHEDULES, Crossings, schedule_on

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


class NotOnMPS(TorchDispatchMode):
    """Says no to what PyTorch's releases up to 2.13 do not have on MPS."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        assert str(op).removeprefix("aten.").partition(".")[0] not in ("take", "special_log_ndtr"), op
        return op(*args, **(kwargs or {}))


def test_a_table_of_betas_is_read_by_what_mps_has():
    schedule, t = BetaSchedule.linear(), torch.tensor([[0.1, 0.5], [0.9, 1.0]])
    with NotOnMPS():
        found = schedule.log_alpha_bar(t), schedule.diffusion(t), schedule.time_at(schedule.log_snr(t))
    assert all(x.shape == t.shape for x in found)
    assert_close(found[2].float(), t, atol=1e-4, rtol=0)

"""Guidance against the exact p(y | x_t) of a labelled mixture, and what guidance is not."""

import math

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    NO_LABEL,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    FlowSchedule,
    GaussianMixture,
    Inpainting,
    LevelClassifier,
    NoisyClassifier,
    ResidualMLP,
    TrainConfig,
    Trainer,
    V,
    VESchedule,
    VPSchedule,
    adaptive_ode,
    adaptive_sde,
    ancestral,
    annealed_langevin,
    classifier_loss,
    corrected,
    ddim,
    dpmpp_2m,
    elbo,
    euler,
    euler_maruyama,
    heun,
    log_likelihood,
    prior,
    q_sample,
    resampled,
    sample,
    times,
    uniform,
)
from diffusion_edu.likelihood import velocity_and_divergence
from tests.cases import every_schedule

ONE = torch.ones((), dtype=torch.float64)
# three components and two classes in two dimensions, nothing symmetric
MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-1.0, 0.2], [0.4, -0.5], [1.3, 0.9]], dtype=torch.float64),
    torch.tensor([0.3, 0.4, 0.35], dtype=torch.float64),
    torch.tensor([0, 1, 0]),
)
LABELS = torch.tensor([0, 1, 1, 0, 1])
X = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Counting:
    """A denoiser that remembers how many examples each of its calls had."""

    def __init__(self, denoiser):
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, []

    def __call__(self, x_t, t, condition=None):
        self.calls.append(len(x_t))
        return self.denoiser(x_t, t, condition)


def both(schedule, scale, **options):
    denoiser = MIXTURE.denoiser(schedule)
    return (
        ClassifierGuidance(denoiser, MIXTURE.classifier(schedule), scale, **options),
        ClassifierFreeGuidance(denoiser, scale, **options),
    )


@every_schedule
@pytest.mark.parametrize("t", [0.02, 0.5, 0.97])
def test_at_scale_0_guidance_forgets_the_label_and_at_1_it_is_bayes_rule(schedule, t):
    t, denoiser = torch.tensor(t, dtype=torch.float64), MIXTURE.denoiser(schedule)
    for guided in both(schedule, 0.0):
        assert torch.equal(guided(X, t, LABELS), denoiser(X, t))
    by_classifier, without = both(schedule, 1.0)
    assert torch.equal(without(X, t, LABELS), denoiser(X, t, LABELS))
    assert_close(by_classifier(X, t, LABELS), denoiser(X, t, LABELS), rtol=1e-8, atol=1e-8)


@every_schedule
@pytest.mark.parametrize("scale", [-0.5, 0.5, 3.0])
def test_with_exact_parts_the_two_guidances_are_one(schedule, scale):
    t = torch.tensor([0.05, 0.3, 0.5, 0.8, 0.95], dtype=torch.float64)
    by_classifier, without = both(schedule, scale)
    assert_close(by_classifier(X, t, LABELS), without(X, t, LABELS), rtol=1e-7, atol=1e-7)


def test_the_exact_classifier_is_the_share_of_the_classs_components():
    t = torch.tensor(0.4, dtype=torch.float64)
    share = MIXTURE.marginal(VPSchedule(), t).responsibilities(X)
    expected = torch.stack([share[:, 0] + share[:, 2], share[:, 1]], 1)
    assert_close(MIXTURE.classifier(VPSchedule())(X, t).exp(), expected)
    with pytest.raises(ValueError, match="without classes"):
        GaussianMixture(MIXTURE.weights, MIXTURE.means, MIXTURE.stds).classifier(VPSchedule())


def test_the_guided_score_is_that_of_the_tilted_noisy_density():
    # grad log [q(x_t) p(y | x_t)^w], differentiated independently of the formula in x_0_hat
    schedule, w, t = VPSchedule(), 2.5, torch.tensor(0.3, dtype=torch.float64)
    x = X.clone().requires_grad_()
    classifier = MIXTURE.classifier(schedule)
    tilted = MIXTURE.marginal(schedule, t).log_prob(x) + w * classifier(x, t)[range(5), LABELS]
    (expected,) = torch.autograd.grad(tilted.sum(), x)
    alpha, sigma = schedule.scales(t, X)
    for guided in both(schedule, w):
        assert_close((alpha * guided(X, t, LABELS) - X) / sigma**2, expected, rtol=1e-9, atol=1e-9)


def test_the_two_conditions_are_one_call_and_a_scale_of_0_or_1_halves_it():
    denoiser = Counting(MIXTURE.denoiser(VPSchedule()))
    t = torch.tensor(0.5, dtype=torch.float64)
    for scale, calls in ((2.0, [10]), (0.0, [5]), (1.0, [5])):
        denoiser.calls.clear()
        ClassifierFreeGuidance(denoiser, scale)(X, t, LABELS)
        assert denoiser.calls == calls


def test_outside_the_interval_there_is_no_guidance_and_no_cost():
    schedule = VPSchedule()
    denoiser = Counting(MIXTURE.denoiser(schedule))
    plain = MIXTURE.denoiser(schedule)
    free = ClassifierFreeGuidance(denoiser, 3.0, interval=(0.2, 0.7))
    by_classifier = ClassifierGuidance(denoiser, MIXTURE.classifier(schedule), 3.0, interval=(0.2, 0.7))
    for t, inside in ((0.2, False), (0.21, True), (0.7, True), (0.71, False)):
        t = torch.tensor(t, dtype=torch.float64)
        denoiser.calls.clear()
        assert torch.equal(free(X, t, LABELS), plain(X, t, LABELS)) is not inside
        assert denoiser.calls == [10 if inside else 5]
        assert torch.equal(by_classifier(X, t, LABELS), plain(X, t)) is not inside
    # a time for each example: the same, example by example
    cosine = CosineSchedule()
    free_to_1 = ClassifierFreeGuidance(MIXTURE.denoiser(cosine), 1.7, interval=(0, 0.99))
    to_1 = ClassifierGuidance(MIXTURE.denoiser(cosine), MIXTURE.classifier(cosine), 1.7, interval=(0, 0.99))
    t = torch.tensor([0.1, 0.3, 0.5, 0.98, 1.0], dtype=torch.float64)
    for guided in (free_to_1, to_1):
        each = torch.cat([guided(X[i : i + 1], t[i], LABELS[i : i + 1]) for i in range(5)])
        assert_close(guided(X, t, LABELS), each, rtol=1e-12, atol=1e-12)
        assert_close(guided(X, t[2:3], LABELS), guided(X, t[2], LABELS))
    with pytest.raises(ValueError, match="alpha = 0"):
        ClassifierGuidance(MIXTURE.denoiser(cosine), MIXTURE.classifier(cosine), 1.7)(X, t, LABELS)
    t = torch.tensor([0.1, 0.2, 0.5, 0.7, 0.9], dtype=torch.float64)
    for guided in (free, by_classifier):
        each = torch.cat([guided(X[i : i + 1], t[i], LABELS[i : i + 1]) for i in range(5)])
        assert_close(guided(X, t, LABELS), each)


def test_an_example_without_a_label_is_not_guided():
    t, labels = torch.tensor(0.5, dtype=torch.float64), torch.tensor([0, NO_LABEL, 1, NO_LABEL, 1])
    plain = MIXTURE.denoiser(VPSchedule())(X, t)
    for guided in both(VPSchedule(), 4.0):
        found = guided(X, t, labels)
        assert_close(found[labels < 0], plain[labels < 0])
        assert (found - plain).abs().amin(1)[labels >= 0].min() > 1e-3


def test_null_may_be_another_class():
    t, plain = torch.tensor(0.5, dtype=torch.float64), MIXTURE.denoiser(VPSchedule())
    zero, one = (plain(X, t, torch.full((5,), y)) for y in (0, 1))
    away_from_1 = ClassifierFreeGuidance(plain, 2.0, null=1)
    assert_close(away_from_1(X, t, torch.zeros(5).long()), 2 * zero - one)


STEPS = {
    "ancestral": ancestral(),
    "ddim": ddim(),
    "ddim(0.5)": ddim(0.5),
    "euler": euler(),
    "heun": heun(),
    "euler_maruyama": euler_maruyama(),
    "dpmpp_2m": dpmpp_2m(),
    "corrected": corrected(ancestral()),
    "annealed_langevin": annealed_langevin(20, 0.3),
    "resampled": resampled(ancestral(), 2),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule(), FlowSchedule()], ids=["vp", "cosine", "flow"])
def test_every_sampler_takes_a_guided_denoiser(step, schedule):
    # far from the boundary, the class that was asked for is the class that comes
    apart = GaussianMixture(torch.ones(2), torch.tensor([[-2.0], [2.0]]), torch.full((2,), 0.3), torch.tensor([0, 1]))
    apart = apart.to(ONE)
    labels = torch.tensor([0, 1] * 20)
    denoiser, classifier = apart.denoiser(schedule), apart.classifier(schedule)
    for guided in (
        ClassifierFreeGuidance(denoiser, 2.0),
        ClassifierGuidance(denoiser, classifier, 2.0, interval=(0, 0.99)),
    ):
        x = prior(schedule, (40, 1), torch.Generator().manual_seed(1), dtype=torch.float64)
        x = sample(step, guided, x, 0.999 * times(40), labels, torch.Generator().manual_seed(2))
        assert torch.equal((x[:, 0] > 0).long(), labels)


def test_at_scale_1_the_bound_and_the_odes_likelihood_are_those_of_the_class(generator):
    schedule = VPSchedule()
    x_0 = MIXTURE.sample(20, generator)
    labels = torch.tensor([0, 1] * 10)
    exact = torch.stack([MIXTURE.given(int(y)).log_prob(x) for x, y in zip(x_0, labels, strict=True)])
    q_1 = MIXTURE.marginal(schedule, ONE)
    guided, without = both(schedule, 1.0)
    given = [MIXTURE.given(y).marginal(schedule, ONE).log_prob for y in (0, 1)]
    at_1 = lambda x: torch.where(labels == 0, given[0](x), given[1](x))  # noqa: E731
    for denoiser in (guided, without):
        assert_close(log_likelihood(denoiser, x_0, at_1, labels), exact, rtol=0, atol=1e-4)
    bounds = [
        elbo(d, x_0, times(30), condition=labels, generator=torch.Generator().manual_seed(0)).total
        for d in (guided, MIXTURE.denoiser(schedule))
    ]
    assert_close(bounds[0], bounds[1], rtol=1e-7, atol=1e-7)
    # the same question without labels has another answer, so that the labels have been heard
    unled = log_likelihood(MIXTURE.denoiser(schedule), x_0, q_1.log_prob)
    assert_close(unled, MIXTURE.log_prob(x_0), rtol=0, atol=1e-4)
    assert (unled - exact).abs().max() > 0.1


def test_guidance_runs_in_the_adaptive_sampler_too(generator):
    guided, _ = both(VPSchedule(), 3.0)
    x = prior(VPSchedule(), (6, 2), generator, dtype=torch.float64)
    labels = torch.tensor([0, 1] * 3)
    *_, by_sde = adaptive_sde(guided, x, condition=labels, generator=generator)
    *_, by_ode = adaptive_ode(guided, x, 1e-5, 1e-5, condition=labels)
    assert by_sde.x.isfinite().all()
    assert_close(by_ode.x, sample(heun(), guided, x, times(2000), labels), rtol=0, atol=2e-3)


LINE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2]),
    torch.tensor([[-1.0], [0.3], [1.5]]),
    torch.tensor([0.3, 0.4, 0.35]),
    torch.tensor([0, 1, 0]),
).to(ONE)
GRID = torch.linspace(-12, 12, 6001, dtype=torch.float64)[:, None]


def tilted(schedule, t, w):
    """q(x_t) p(y = 1 | x_t)^w on GRID, summing to 1: the density that the guided field at t is the score of."""
    t = torch.tensor(t, dtype=torch.float64)
    log_prob = LINE.marginal(schedule, t).log_prob(GRID) + w * LINE.classifier(schedule)(GRID, t)[:, 1]
    return torch.softmax(log_prob, 0)


@pytest.mark.parametrize("w", [0.0, 1.0, 0.5, 2.0, 4.0])
def test_the_guided_fields_are_the_scores_of_no_noised_density_unless_the_scale_is_0_or_1(w):
    # If there were a density of data with these scores at each t, then x_t = alpha x_0 + sigma eps would hold for it,
    # and so E[x_t] / alpha(t) = E[x_0] the same at each t. The score gives the density, and so its mean.
    schedule = VPSchedule()
    means = torch.stack(
        [
            (tilted(schedule, t, w) * GRID[:, 0]).sum() / schedule.alpha(torch.tensor(t, dtype=torch.float64))
            for t in (1e-4, 0.2, 0.5, 0.8)
        ]
    )
    spread = float(means.max() - means.min())
    assert spread < 1e-9 if w in (0.0, 1.0) else spread > 0.1


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0])
def test_noise_added_to_the_tilted_data_does_not_give_the_guided_field(w):
    # the density that one would want, q(x_0) p(y | x_0)^w, noised to t by summing over the grid
    schedule, t = VPSchedule(), torch.tensor(0.3, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    at_0 = tilted(schedule, 1e-9, w)
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    kernel = torch.softmax(torch.log(at_0) - (x - alpha * GRID[:, 0]) ** 2 / (2 * sigma**2), 1)
    wanted = (kernel * (alpha * GRID[:, 0] - x)).sum(1, keepdim=True) / sigma**2
    guided = ClassifierFreeGuidance(LINE.denoiser(schedule), w)
    found = (alpha * guided(x, t, torch.ones(41).long()) - x) / sigma**2
    difference = float((found - wanted).abs().max())
    assert difference < 1e-6 if w in (0.0, 1.0) else difference > 0.2


def test_a_classifier_of_points_is_trained_by_the_trainer_to_the_exact_one():
    schedule = VPSchedule()

    class Points:
        def batch(self, step, size):
            x_0, k = MIXTURE.sample_with_components(size, torch.Generator().manual_seed(step))
            return x_0.float(), MIXTURE.labels[k]

    torch.manual_seed(0)
    model = NoisyClassifier(ResidualMLP(2, 32, 2, out_dim=2), schedule)
    config = TrainConfig(steps=400, batch_size=256, learning_rate=3e-3, label_drop=0.0, ema_decay=0.99, device="cpu")
    learnt = Trainer(model, Points(), classifier_loss, config).run().ema
    assert isinstance(learnt, NoisyClassifier) and not learnt.training
    x_0, _ = MIXTURE.sample_with_components(2000, torch.Generator().manual_seed(9))
    for t in (0.05, 0.3, 0.6, 1.0):
        t = torch.tensor(t, dtype=torch.float64)
        x_t = q_sample(schedule, x_0, t, torch.randn_like(x_0))
        exact, found = MIXTURE.classifier(schedule)(x_t, t).exp(), torch.softmax(learnt(x_t.float(), t), 1)
        assert (exact - found).abs().mean() < 0.03
    # and guides nearly as the exact one does
    t = torch.tensor(0.3, dtype=torch.float64)
    guided, exact = (
        ClassifierGuidance(MIXTURE.denoiser(schedule), c, 1.0) for c in (learnt, MIXTURE.classifier(schedule))
    )
    x_t, labels = q_sample(schedule, x_0, t, torch.randn_like(x_0)).float(), torch.ones(2000).long()
    error = (guided(x_t, t, labels) - exact(x_t, t, labels)).square().mean().sqrt()
    shift = (MIXTURE.denoiser(schedule)(x_t, t) - exact(x_t, t, labels)).square().mean().sqrt()
    assert error < 0.4 * shift


def test_the_classifiers_loss_is_the_entropy_of_the_labels_at_t_1_and_0_for_a_hidden_label(generator):
    schedule = CosineSchedule()

    class Exact:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t):
            return MIXTURE.classifier(schedule)(x_t, t)

    x_0, k = MIXTURE.sample_with_components(4000, generator)
    labels = MIXTURE.labels[k]
    loss = classifier_loss(Exact(), x_0, ONE, condition=labels, generator=generator)
    assert_close(loss.mean().item(), -0.7 * math.log(0.7) - 0.3 * math.log(0.3), rtol=0, atol=0.02)
    hidden = classifier_loss(Exact(), x_0, uniform(4000, generator), condition=torch.full((4000,), NO_LABEL))
    assert (hidden == 0).all()


def test_a_classifier_of_pictures_guides_a_model_of_pictures(generator):
    schedule = CosineSchedule()
    classifier = NoisyClassifier(LevelClassifier(1, 3, (8, 8)), schedule).eval()
    for p in classifier.parameters():  # an untrained one says nothing
        torch.nn.init.normal_(p, std=0.3)
    x, t = torch.randn(2, 1, 9, 9), torch.tensor([0.3, 0.6], dtype=torch.float64)
    assert classifier(x, t).shape == (2, 3)
    logits = [classifier(x, torch.full((2,), u, dtype=torch.float64)) for u in (0.3, 0.6)]
    assert (logits[0] - logits[1]).abs().max() > 1e-4  # it hears the level

    class Flat:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t, condition=None):
            return torch.zeros_like(x_t)

    guided = ClassifierGuidance(Flat(), classifier, 1.0)
    towards = guided(x, t, torch.tensor([2, 2]))
    h = 1e-2 * towards / towards.flatten(1).norm(dim=1)[:, None, None, None]
    gain = torch.log_softmax(classifier(x + h, t), 1)[:, 2] - torch.log_softmax(classifier(x - h, t), 1)[:, 2]
    assert (gain > 0).all()


# Inpainting: components on a diagonal, x[0] known. p(x[1] | x[0]) is known: which component, then its Gaussian.
DIAGONAL = GaussianMixture(torch.ones(2), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([0.4, 0.4])).to(ONE)
KNOWN, MASK = torch.tensor([[0.3, 0.0]], dtype=torch.float64), torch.tensor([[True, False]])
SHARE = 1 / (1 + math.exp(-2 * 0.3 / 0.4**2))  # of the upper component, given x[0] = 0.3: 0.977


def upper_share(step, generator, scale=0.0, n=2000, steps=60):
    denoiser = Inpainting(DIAGONAL.denoiser(VPSchedule()), KNOWN, MASK, scale)
    x = sample(
        step, denoiser, prior(VPSchedule(), (n, 2), generator, dtype=torch.float64), times(steps), None, generator
    )
    assert_close(x[:, 0], torch.full((n,), 0.3, dtype=torch.float64))
    return float((x[:, 1] > 0).double().mean())


def test_replacement_is_biased_and_resampling_and_reconstruction_lessen_the_bias(generator):
    replaced = upper_share(ancestral(), generator)
    again = upper_share(resampled(ancestral(), 10), generator)
    reconstructed = upper_share(ancestral(), generator, scale=1.0)
    assert SHARE > 0.97
    assert replaced < 0.75  # far from the exact answer: the negative result
    assert replaced + 0.08 < again < SHARE and replaced + 0.05 < reconstructed < SHARE


def test_under_replacement_the_known_part_walks_along_its_marginal(generator):
    schedule, n = VPSchedule(), 20_000
    denoiser = Inpainting(DIAGONAL.denoiser(schedule), KNOWN, MASK)
    x = prior(schedule, (n, 2), generator, dtype=torch.float64)
    grid = times(20)[:12]
    x = sample(ancestral(), denoiser, x, grid, generator=generator)
    alpha, sigma = schedule.alpha(grid[-1]).item(), schedule.sigma(grid[-1]).item()
    assert abs(x[:, 0].mean().item() - 0.3 * alpha) < 6 * sigma / math.sqrt(n) + 0.01 * alpha
    assert abs(x[:, 0].std().item() / sigma - 1) < 6 / math.sqrt(2 * n)


def test_reconstruction_guidance_is_the_papers_formula():
    # one Gaussian N(0, I): x_0_hat = alpha x_t / (alpha^2 + sigma^2), whose known part does not depend on the unknown
    # one; with correlated data it does, and the gradient is checked against differences
    schedule, t = VPSchedule(), torch.tensor(0.4, dtype=torch.float64)
    plain = DIAGONAL.denoiser(schedule)
    guided = Inpainting(plain, KNOWN, MASK, 0.7)(X, t)
    h = 1e-6
    error = lambda x: (KNOWN[0, 0] - plain(x, t)[:, 0]) ** 2  # noqa: E731
    step = torch.tensor([[0.0, h]], dtype=torch.float64)
    gradient = (error(X + step) - error(X - step)) / (2 * h)
    expected = plain(X, t)[:, 1] - 0.7 * schedule.alpha(t) / 2 * gradient
    assert_close(guided[:, 1], expected, rtol=1e-6, atol=1e-8)
    assert_close(guided[:, 0], KNOWN[:, 0].expand(5))


def test_wrappers_know_whether_a_network_within_is_in_training():
    model = DiffusionModel(ResidualMLP(2, 8, 1, num_classes=2), CosineSchedule(), V)
    classifier = NoisyClassifier(ResidualMLP(2, 8, 1, out_dim=2), CosineSchedule()).eval()
    for wrapper in (
        ClassifierGuidance(MIXTURE.denoiser(CosineSchedule()), classifier.train(), 1.0),
        ClassifierFreeGuidance(model, 2.0),
        Inpainting(model, torch.zeros(2), torch.ones(2).bool()),
    ):
        assert wrapper.training
        with pytest.raises(ValueError, match="eval"):
            sample(ddim(), wrapper, torch.zeros(2, 2), times(2), torch.tensor([0, 1]))


def test_wrong_arguments_get_a_sentence():
    t, (by_classifier, free) = torch.tensor(0.5, dtype=torch.float64), both(VPSchedule(), 2.0)
    for guided in (by_classifier, free):
        for labels in (None, torch.zeros(4).long(), torch.zeros(5)):
            with pytest.raises(ValueError, match="one integer label per example"):
                guided(X, t, labels)
    for options in (
        {"scale": math.nan},
        {"scale": 1.0, "interval": (0.5, 0.5)},
        {"scale": 1.0, "interval": (0.0, 1.5)},
    ):
        with pytest.raises(ValueError, match="finite scale and times"):
            both(VPSchedule(), **options)
    with pytest.raises(ValueError, match="alpha = 0"):
        both(CosineSchedule(), 2.0)[0](X, ONE, LABELS)
    with pytest.raises(ValueError, match="must be bool"):
        Inpainting(DIAGONAL.denoiser(VPSchedule()), KNOWN, MASK.double())
    with pytest.raises(ValueError, match="scale=-1"):
        Inpainting(DIAGONAL.denoiser(VPSchedule()), KNOWN, MASK, -1)
    with pytest.raises(ValueError, match="one integer label"):
        classifier_loss(NoisyClassifier(ResidualMLP(2, out_dim=2), VPSchedule()), X.float(), t, condition=None)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_whole_number_type_lead_as_those_of_int64_do(dtype):
    schedule, t = VPSchedule(), torch.tensor(0.5, dtype=torch.float64)
    net = DiffusionModel(ResidualMLP(2, 8, 1, num_classes=2), schedule, V).double().eval()
    judge = NoisyClassifier(ResidualMLP(2, 8, 1, out_dim=2), schedule).double().eval()
    for part in (net, judge):
        for p in part.parameters():
            torch.nn.init.normal_(p, std=0.3)
    ask = [
        lambda labels: ClassifierFreeGuidance(net, 2.0)(X, t, labels),
        lambda labels: ClassifierGuidance(net, judge, 2.0)(X, t, labels),
        lambda labels: classifier_loss(judge, X, t, condition=labels, eps=torch.ones_like(X)),
    ]
    for question in ask:
        assert torch.equal(question(LABELS.to(dtype)), question(LABELS))
        with pytest.raises(ValueError, match="one integer label"):
            question(LABELS == 1)
    hidden = classifier_loss(judge, X, t, condition=torch.tensor([0, -2, 1, -1, 0]), eps=torch.ones_like(X))
    assert torch.equal(hidden == 0, torch.tensor([False, True, False, True, False]))


def test_guidance_by_gradients_answers_in_inference_mode_too():
    schedule, t = VPSchedule(), torch.tensor(0.5, dtype=torch.float64)
    mask = torch.tensor([True, False])
    for guided in (
        ClassifierGuidance(MIXTURE.denoiser(schedule), MIXTURE.classifier(schedule), 2.0),
        Inpainting(MIXTURE.denoiser(schedule), torch.zeros(2, dtype=torch.float64), mask, 1.0),
    ):
        expected = guided(X, t, LABELS)
        with torch.inference_mode():
            assert torch.equal(guided(X.clone(), t, LABELS), expected)
            sample(ddim(), guided, X, torch.tensor([0.5, 0.2, 0.0], dtype=torch.float64), LABELS)


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_what_is_filled_in_is_of_the_class_that_was_asked_for(scale):
    schedule, t = VPSchedule(), torch.tensor(0.4, dtype=torch.float64)
    filled = Inpainting(MIXTURE.denoiser(schedule), KNOWN, MASK, scale)
    found = [filled(X, t, torch.full((5,), y)) for y in (0, 1)]
    for y in (0, 1):
        assert_close(found[y], Inpainting(MIXTURE.given(y).denoiser(schedule), KNOWN, MASK, scale)(X, t))
    assert (found[0] - found[1])[:, 1].abs().min() > 1e-3


class SaysWhatItSees(torch.nn.Module):
    def forward(self, x, level):
        return x


@pytest.mark.parametrize("schedule", [VESchedule(), EDMSchedule(), FlowSchedule()], ids=lambda s: type(s).__name__)
def test_the_network_of_a_noisy_classifier_sees_data_of_variance_1(schedule):
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    alpha, sigma = schedule.scales(t, like=X)
    assert_close(NoisyClassifier(SaysWhatItSees(), schedule)(X, t), X / (alpha**2 + sigma**2).sqrt())
    assert ((alpha**2 + sigma**2 - 1).abs() > 0.05).any(), "else no factor would be seen"


def test_what_is_known_must_be_finite():
    with pytest.raises(ValueError, match="a known x_0 with NaN or infinite numbers"):
        Inpainting(MIXTURE.denoiser(VPSchedule()), torch.tensor([[math.nan, 0.0]]), MASK)


TWO = GaussianMixture(
    torch.ones(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.full((2,), 0.1), torch.tensor([0, 1])
)  # a class each


def test_a_class_without_weight_leaves_the_classifiers_gradient_finite():
    schedule, only = CosineSchedule(), TWO.given(0)
    guided = ClassifierGuidance(only.denoiser(schedule), only.classifier(schedule), 2.0)
    x, t, labels = torch.randn(3, 2), torch.tensor(0.5), torch.tensor([0, 0, -1])
    assert_close(guided(x, t, labels), only.denoiser(schedule)(x, t))  # p(0 | x_t) = 1: nothing to add


@pytest.mark.parametrize("t", [0.1, 0.3])
def test_an_end_of_the_interval_is_the_same_for_one_time_and_for_one_each(t):
    guided = ClassifierFreeGuidance(TWO.denoiser(CosineSchedule()), 3.0, interval=(0.1, 0.3))
    x, labels = torch.randn(2, 2), torch.tensor([0, 1])
    assert_close(guided(x, torch.tensor(t), labels), guided(x, torch.full((2,), t), labels))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_mask_made_in_inference_mode_can_be_filled_in_around(scale):
    denoiser, t = TWO.denoiser(VPSchedule()), torch.tensor(0.5, dtype=torch.float64)
    x, known, mask = torch.randn(3, 2), torch.zeros(2), torch.tensor([True, False])
    expected = Inpainting(denoiser, known, mask, scale)(x, t)
    with torch.inference_mode():
        filled = Inpainting(denoiser, known.clone(), mask.clone(), scale)
        assert_close(filled(x.clone(), t), expected)
        velocity_and_divergence(filled, x.clone(), t)


@pytest.mark.parametrize("null", [None, 1.5, True])
def test_a_null_that_is_no_label_gets_a_sentence(null):
    with pytest.raises(ValueError, match="ClassifierFreeGuidance got null="):
        ClassifierFreeGuidance(TWO.denoiser(CosineSchedule()), 2.0, null=null)


@pytest.mark.parametrize("channels", [8, (8, 0), (8, -2), (8, 2.5), "88"])
def test_the_channels_of_a_level_classifier_are_counts(channels):
    with pytest.raises(ValueError, match=r"LevelClassifier got channels"):
        LevelClassifier(channels=channels)

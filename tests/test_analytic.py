"""The mixture's closed forms against autodiff, numerical integration and its own samples."""

import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    EmpiricalDenoiser,
    GaussianMixture,
    ddim,
    mnist_5k,
    moons,
    prior,
    q_sample,
    ring,
    sample,
    swiss,
    times,
    to_model_range,
)
from diffusion_edu.analytic import gaussian
from tests.cases import every_schedule

MIXTURE = GaussianMixture(
    torch.tensor([1.0, 3.0], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [2.0, -1.0]], dtype=torch.float64),
    torch.tensor([[0.3, 0.4], [0.5, 0.2]], dtype=torch.float64),
    torch.tensor([0, 1]),
)


def test_log_prob_is_the_torch_mixtures():
    base = torch.distributions.Independent(torch.distributions.Normal(MIXTURE.means, MIXTURE.stds), 1)
    reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(MIXTURE.weights), base)
    x = 3 * torch.randn(100, 2, dtype=torch.float64)
    assert_close(MIXTURE.log_prob(x), reference.log_prob(x))
    assert_close(MIXTURE.mean, reference.mean)
    assert_close(MIXTURE.covariance.diagonal(), reference.variance)


def test_the_score_is_the_gradient_of_log_prob():
    x = (2 * torch.randn(100, 2, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(MIXTURE.log_prob(x).sum(), x)
    assert_close(MIXTURE.score(x.detach()), gradient)


def test_samples_have_the_mixtures_mean_and_covariance(generator):
    n = 200_000
    x, k = MIXTURE.sample_with_components(n, generator)
    assert abs((k == 1).double().mean().item() - 0.75) < 6 * math.sqrt(0.75 * 0.25 / n)
    z = (x.mean(0) - MIXTURE.mean) / (MIXTURE.covariance.diagonal() / n).sqrt()
    assert (z.abs() < 6).all()
    assert_close(torch.cov(x.T), MIXTURE.covariance, atol=6 * 4 / math.sqrt(n), rtol=0)


@every_schedule
def test_the_marginal_is_the_distribution_of_noised_samples(schedule, generator):
    n, t = 100_000, torch.tensor(0.4, dtype=torch.float64)
    x_0 = MIXTURE.sample(n, generator)
    x_t = q_sample(schedule, x_0, t, torch.randn(n, 2, generator=generator, dtype=torch.float64))
    marginal = MIXTURE.marginal(schedule, t)
    z = (x_t.mean(0) - marginal.mean) / (marginal.covariance.diagonal() / n).sqrt()
    assert (z.abs() < 6).all()
    spread = marginal.covariance.diagonal().max().item()
    assert_close(torch.cov(x_t.T), marginal.covariance, atol=6 * 2 * spread / math.sqrt(n), rtol=0)


@every_schedule
@pytest.mark.parametrize("t", [1e-3, 0.2, 0.7, 0.999])
def test_the_denoiser_is_the_posterior_mean_by_numerical_integration(schedule, t):
    mixture = GaussianMixture(
        torch.tensor([0.4, 0.6], dtype=torch.float64),
        torch.tensor([[-1.0], [0.8]], dtype=torch.float64),
        torch.tensor([0.3, 0.6], dtype=torch.float64),
    )
    t = torch.tensor(t, dtype=torch.float64)
    x_t = mixture.marginal(schedule, t).sample(20, torch.Generator().manual_seed(0))
    grid = torch.linspace(-5, 5, 400_001, dtype=torch.float64)
    log_joint = mixture.log_prob(grid[:, None]) - 0.5 * ((x_t - schedule.alpha(t) * grid) / schedule.sigma(t)) ** 2
    weight = torch.softmax(log_joint, -1)
    assert_close(mixture.denoiser(schedule)(x_t, t)[:, 0], (weight * grid).sum(-1), atol=1e-7, rtol=1e-7)


@every_schedule
def test_a_batch_of_times_gives_what_single_times_give(schedule):
    t = torch.rand(6, dtype=torch.float64)
    x_t = torch.randn(6, 2, dtype=torch.float64)
    denoiser = MIXTURE.denoiser(schedule)
    one_by_one = torch.cat([denoiser(x_t[i : i + 1], t[i]) for i in range(6)])
    assert_close(denoiser(x_t, t), one_by_one)
    assert_close(MIXTURE.marginal(schedule, t).log_prob(x_t)[2], MIXTURE.marginal(schedule, t[2]).log_prob(x_t[2]))


def test_one_gaussian_is_a_mixture_of_one_with_the_linear_denoiser():
    schedule, m, s = BetaSchedule.linear(100), 2.0, 1.5
    one = GaussianMixture(torch.ones(1), torch.tensor([[m]]).double(), torch.tensor([s]).double())
    x_t, t = torch.randn(9, 1, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    a, v = schedule.alpha(t), schedule.sigma(t) ** 2
    assert_close(one.denoiser(schedule)(x_t, t), m + a * s**2 / (a**2 * s**2 + v) * (x_t - a * m))


def test_points_are_components_of_std_0():
    points = GaussianMixture(torch.ones(3), torch.tensor([[0.0], [1.0], [5.0]]).double(), torch.zeros(3).double())
    t = BetaSchedule.linear(1000).time(1)
    nearest = points.denoiser(BetaSchedule.linear(1000))(torch.tensor([[0.98], [4.9]]).double(), t)
    assert_close(nearest, torch.tensor([[1.0], [5.0]]).double(), atol=1e-12, rtol=0)


def test_a_condition_restricts_to_the_components_of_its_class():
    schedule, t = BetaSchedule.linear(100), torch.tensor(0.5, dtype=torch.float64)
    x_t = torch.randn(4, 2, dtype=torch.float64)
    answer = MIXTURE.denoiser(schedule)(x_t, t, torch.tensor([0, 1, -1, 0]))
    assert_close(answer[:2], torch.stack([MIXTURE.given(c).denoiser(schedule)(x_t[c : c + 1], t)[0] for c in (0, 1)]))
    assert_close(answer[2:3], MIXTURE.denoiser(schedule)(x_t[2:3], t))
    with pytest.raises(ValueError, match="classes are \\[0, 1\\]"):
        MIXTURE.given(7)
    bare = GaussianMixture(MIXTURE.weights, MIXTURE.means, MIXTURE.stds)
    with pytest.raises(ValueError, match="without labels"):
        bare.denoiser(schedule)(x_t, t, torch.tensor([0, 1, 0, 1]))


def test_responsibilities_are_bayes_rule():
    x = torch.randn(10, 2, dtype=torch.float64)
    p = MIXTURE.component_log_prob(x).exp()
    assert_close(MIXTURE.responsibilities(x), p / p.sum(-1, keepdim=True))


@pytest.mark.parametrize("toy", [moons, swiss, ring])
def test_toys_are_centred_with_variance_1_on_average(toy):
    mixture = GaussianMixture(*toy())
    assert_close(mixture.mean, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(mixture.covariance.diagonal().mean().item(), 1.0, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match=r"std=0\.0; it is the width of each component, a number above 0"):
        toy(std=0.0)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.ones(2), torch.zeros(3, 2), torch.ones(3)),
        (torch.ones(3), torch.zeros(3), torch.ones(3)),
        (torch.ones(3), torch.zeros(3, 2), torch.ones(2)),
        (torch.tensor([1.0, -1.0]), torch.zeros(2, 2), torch.ones(2)),
        (torch.zeros(2), torch.zeros(2, 2), torch.ones(2)),
        (torch.ones(2), torch.zeros(2, 2), -torch.ones(2)),
        (torch.ones(2), torch.zeros(2, 2), torch.ones(2), torch.ones(3)),
    ],
)
def test_impossible_mixtures_get_a_sentence(arguments):
    with pytest.raises(ValueError, match="GaussianMixture got"):
        GaussianMixture(*arguments)


def test_a_question_of_another_dimension_gets_a_sentence():
    with pytest.raises(ValueError, match="2 dimensions"):
        MIXTURE.denoiser(BetaSchedule.linear(10))(torch.zeros(4, 3), torch.tensor(0.5))


@every_schedule
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_empirical_denoiser_is_the_mixture_of_points(schedule, chunk):
    points, labels = torch.randn(10, 2, dtype=torch.float64), torch.arange(10) % 2
    mixture = GaussianMixture(torch.ones(10), points, torch.zeros(10).double(), labels)
    empirical = EmpiricalDenoiser(points, schedule, labels, chunk)
    x_t, t = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0.01, 0.2, 0.4, 0.6, 0.8, 0.99], dtype=torch.float64)
    assert_close(empirical(x_t, t), mixture.denoiser(schedule)(x_t, t), atol=1e-9, rtol=1e-9)
    condition = torch.tensor([0, 1, -1, 1, 0, -1])
    assert_close(empirical(x_t, t, condition), mixture.denoiser(schedule)(x_t, t, condition), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_the_empirical_denoiser_never_makes_a_table_of_all_60_000_examples(kind):
    """As many as MNIST has, as one row that is shown 60,000 times and takes no memory."""

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else (out,):
                if isinstance(x, torch.Tensor):  # views of the examples are no tables of their own
                    self.numbers = max(self.numbers, x.untyped_storage().nbytes() // x.element_size())
            return out

    B, N, D = 16, 60_000, 784
    examples = torch.randint(0, 2, (1, D), dtype=torch.uint8).to(kind).expand(N, D)
    labels, x_t = torch.arange(N) % 10, torch.randn(B, D)
    with Largest() as largest:
        denoiser = EmpiricalDenoiser(examples, CosineSchedule(), labels)
        found = denoiser(x_t, torch.tensor(0.5), torch.arange(B) % 10)
    assert largest.numbers <= max(B, D) * denoiser.chunk < N * D / 10
    wanted = to_model_range(examples[0]) if kind == torch.uint8 else examples[0]
    assert_close(found, wanted.expand(B, D), atol=1e-5, rtol=0)


def test_sampling_with_the_empirical_denoiser_returns_training_pictures(generator):
    digits, schedule = mnist_5k("test"), CosineSchedule()
    denoiser = EmpiricalDenoiser(digits.images, schedule, digits.labels, chunk=300)
    asked = torch.arange(6)
    x = sample(ddim(), denoiser, prior(schedule, (6, 1, 28, 28), generator), times(30), asked)
    nearest = torch.cdist(x.flatten(1), digits.x_0.flatten(1)).argmin(1)
    assert_close(x, digits.x_0[nearest], atol=1e-4, rtol=0)
    assert torch.equal(digits.labels[nearest], asked)


def test_one_gaussian_by_its_name():
    one = gaussian(torch.tensor([1.0, 2.0]), torch.tensor(0.5))
    assert_close(one.mean, torch.tensor([1.0, 2.0]))
    assert_close(one.covariance, 0.25 * torch.eye(2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: EmpiricalDenoiser(torch.zeros(0, 2), CosineSchedule()),
        lambda: EmpiricalDenoiser(torch.zeros(3, 2), CosineSchedule(), torch.zeros(2)),
        lambda: EmpiricalDenoiser(torch.zeros(3, 2), CosineSchedule())(torch.zeros(2, 3), torch.tensor(0.5)),
        lambda: EmpiricalDenoiser(torch.zeros(3, 2), CosineSchedule())(
            torch.zeros(2, 2), torch.tensor(0.5), torch.zeros(2).long()
        ),
    ],
)
def test_wrong_questions_to_the_empirical_denoiser_get_a_sentence(call):
    with pytest.raises(ValueError, match="EmpiricalDenoiser"):
        call()


def test_swiss_is_a_spiral_evenly_spaced_along_its_length():
    _, means, _, _ = swiss(turns=1.5, components=60)
    gaps = means.diff(dim=0)
    lengths, headings = gaps.norm(dim=1), torch.atan2(gaps[:, 1], gaps[:, 0])
    turned = torch.remainder(headings.diff() + math.pi, 2 * math.pi) - math.pi
    assert lengths.max() / lengths.min() < 1.25
    assert abs(turned.sum().item() - 1.5 * 2 * math.pi) < 0.6, "it goes round one and a half times"
    assert means.norm(dim=1)[-10:].min() > 1.5 * means.norm(dim=1)[:10].max(), "and outwards"


def test_a_ring_closes():
    _, means, _, _ = ring(5)
    angles = torch.atan2(means[:, 1], means[:, 0])
    apart = torch.remainder(torch.cat([angles, angles[:1]]).diff(), 2 * math.pi)
    assert_close(apart, torch.full((5,), 2 * math.pi / 5, dtype=torch.float64))
    assert_close(means.norm(dim=1), means.norm(dim=1)[0].expand(5))


TWO = GaussianMixture(
    torch.ones(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.full((2,), 0.1), torch.tensor([0, 1])
)  # a class each


def test_a_class_without_weight_is_refused_and_not_answered_with_nan():
    denoiser, x, t = TWO.given(0).denoiser(CosineSchedule()), torch.zeros(3, 2), torch.tensor(0.5)
    assert denoiser(x, t, torch.tensor([0, 0, -1])).isfinite().all()
    with pytest.raises(ValueError, match=r"for the class 1; its classes are \[0\]"):
        denoiser(x, t, torch.tensor([0, 1, -1]))


def test_a_class_beyond_the_labels_type_is_no_other_class():
    labels = torch.tensor([0, 44], dtype=torch.uint8)  # 300 wraps to 44
    mixture = GaussianMixture(TWO.weights, TWO.means, TWO.stds, labels)
    for label in (300, -212):
        with pytest.raises(ValueError, match=r"its classes are \[0, 44\]"):
            mixture.given(label)


def test_a_mixture_is_not_rounded_to_whole_numbers():
    with pytest.raises(TypeError, match=r"GaussianMixture\.to got like"):
        TWO.to(torch.zeros(3, dtype=torch.uint8))


def test_a_batch_of_stds_must_fit_the_batch_of_means():
    with pytest.raises(ValueError, match="GaussianMixture got weights of shape"):
        GaussianMixture(torch.ones(2), torch.zeros(3, 2, 2), torch.ones(5, 2, 1))
    assert GaussianMixture(torch.ones(2), torch.zeros(3, 2, 2), torch.ones(1, 2, 1)).log_prob(
        torch.zeros(3, 2)
    ).shape == (3,)


def test_one_example_without_its_batch_gets_a_sentence_of_the_mixture():
    line = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1), torch.zeros(1, dtype=torch.long))
    for asked in (line.denoiser(CosineSchedule()), line.classifier(CosineSchedule())):
        with pytest.raises(ValueError, match=r"x_t of shape \(5,\)"):
            asked(torch.zeros(5), torch.tensor(0.5))

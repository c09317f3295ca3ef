SCORE = """
def my_score(x, weights, means, stds):
    away = x[:, None] - means
    p_k = weights * torch.exp(-((away / stds) ** 2) / 2) / stds
    r = p_k / p_k.sum(dim=1, keepdim=True)
    return (r * -away / stds**2).sum(dim=1)
"""
LOSS = """
def my_loss(score, x_0, eps, alpha, sigma):
    x_t = alpha * x_0 + sigma * eps
    target = -eps / sigma
    return (sigma**2 * (score(x_t) - target) ** 2).mean(dim=1)
"""
ANNEALED = """
def my_annealed(score, x, sigmas, moves, size, generator):
    for sigma in sigmas:
        h = (size * sigma) ** 2
        for _ in range(moves):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + h * score(x, sigma) + torch.sqrt(2 * h) * z
    return x
"""
BASINS = """
def my_basins(start, weights, means, stds):
    away = (start[:, None] - means) / stds
    log_p = torch.log(weights / stds) - away**2 / 2
    own = log_p.argmax(dim=1)
    return torch.bincount(own, minlength=len(means)) / len(start)
"""
BASINS_BY_ANNEALING = """
def my_basins(start, weights, means, stds):
    x, generator = start[:, None], torch.Generator().manual_seed(0)
    for sigma in torch.exp(torch.linspace(1.2, -4.0, 60, dtype=torch.float64)):
        noisy = GaussianMixture(weights, means[:, None], torch.sqrt(stds**2 + sigma**2))
        h = (0.4 * torch.sqrt(sigma**2 + stds.min() ** 2)) ** 2
        for _ in range(10):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + h * noisy.score(x) + torch.sqrt(2 * h) * z
    return noisy.responsibilities(x).mean(0)
"""
MEASURE = "def my_measure(x, alphas, sigmas):\n    "


def changed(program: str, right: str, wrong: str) -> str:
    assert program.count(right) == 1, right
    return program.replace(right, wrong)


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "11.1": [
        (changed(SCORE, "* -away", "* away"), "the sign is turned"),
        (changed(SCORE, "r * -away", "p_k / (2 * torch.pi) ** 0.5 * -away"), "the slope of the density"),
        (changed(SCORE, "r * -away", "weights * -away"), "averaged with the weights w_k"),
        (changed(SCORE, "p_k = weights * ", "p_k = "), "the weights w_k are missing"),
        (changed(SCORE, " / 2) / stds", " / 2)"), "lacks its normaliser"),
        (changed(SCORE, "-away / stds**2", "-away / stds"), "the variance belongs there"),
        (
            changed(SCORE, "r = p_k / p_k.sum(dim=1, keepdim=True)", "r = p_k == p_k.max(1, keepdim=True).values"),
            "the likeliest component alone",
        ),
        (changed(SCORE, "r * -away", "-away"), "are added, and not averaged"),
        (changed(SCORE, ".sum(dim=1)\n", "\n"), "shape"),
    ],
    "11.2": [
        (changed(LOSS, "-eps / sigma", "eps / sigma"), "the target's sign is turned"),
        (changed(LOSS, "-eps / sigma", "-eps"), "lacks its 1 / sigma"),
        (changed(LOSS, "-eps / sigma", "-eps / sigma**2"), "once too often"),
        (changed(LOSS, "sigma**2 * (", "("), "the weight sigma^2 is missing"),
        (changed(LOSS, "sigma**2 * (", "sigma * ("), "the weight is sigma"),
        (changed(LOSS, "alpha * x_0", "x_0"), "made without alpha"),
        (changed(LOSS, "+ sigma * eps", "+ sigma**2 * eps"), "made with the variance"),
        (changed(LOSS, "score(x_t)", "score(x_0)"), "asked at the clean x_0"),
        (changed(LOSS, "-eps / sigma", "-(x_t - x_0) / sigma**2"), "the target forgets alpha"),
        (changed(LOSS, "(sigma**2 *", "(sigma**2 / 2 *"), "a factor 1/2"),
        (changed(LOSS, ".mean(dim=1)", ".sum(dim=1)"), "were added up"),
        (changed(LOSS, ".mean(dim=1)", ".mean()"), "one number came back for the whole batch"),
    ],
    "11.3": [
        ("h_5_percent = 0.4", "infinitely small steps"),
        ("h_5_percent = 2 * (1 - 1 / 1.05)", "this is h/v"),
        ("h_5_percent = 8 * (1 - 1 / 1.05**2)", "the standard deviation 5 % too large"),
        ("h_5_percent = 4 * (1 - 1 / 1.05)", "the factor 2 is missing"),
        ("h_5_percent = 1 - 1 / 1.05", "multiply by 2v"),
        ("h_5_percent = (2 * (1 - 1 / 1.05)) ** 0.5", "h itself was asked for"),
        ("h_5_percent = 1.0", "off by up to"),
    ],
    "11.4": [
        (changed(ANNEALED, "in sigmas:", "in sigmas.flip(0):"), "much noise to little"),
        (changed(ANNEALED, "in sigmas:", "in sigmas[-1:]:"), "plain Langevin"),
        (changed(ANNEALED, "range(moves)", "range(1)"), "one move at each level"),
        (changed(ANNEALED, "range(moves)", "range(moves - 1)"), "the score was asked at"),
        (
            """
def my_annealed(score, x, sigmas, moves, size, generator):
    for _ in range(moves):
        for sigma in sigmas:
            h = (size * sigma) ** 2
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + h * score(x, sigma) + torch.sqrt(2 * h) * z
    return x
""",
            "the wrong way round",
        ),
        (changed(ANNEALED, "h = (size * sigma) ** 2", "h = (size * sigmas[-1]) ** 2"), "the same at each level"),
        (changed(ANNEALED, "x + h * score", "x - h * score"), "its sign is turned"),
        (changed(ANNEALED, "(size * sigma) ** 2", "size * sigma"), "the step is size sigma, and its square"),
        (changed(ANNEALED, "(size * sigma) ** 2", "size * sigma**2"), "the step is size sigma^2"),
        (changed(ANNEALED, "h * score", "2 * h * score"), "multiplied by 2 h; in"),
        (changed(ANNEALED, "h * score", "h / 2 * score"), "multiplied by h/2"),
        (changed(ANNEALED, " + torch.sqrt(2 * h) * z", ""), "there is no noise"),
        (changed(ANNEALED, "torch.sqrt(2 * h)", "torch.sqrt(h)"), "the noise has the variance h"),
        (changed(ANNEALED, "torch.sqrt(2 * h)", "h"), "the noise is multiplied by h,"),
        (changed(ANNEALED, "torch.sqrt(2 * h)", "2 * h"), "the noise is multiplied by 2 h"),
        (
            changed(ANNEALED, "torch.sqrt(2 * h)", "torch.sqrt(2 * (size * sigmas[-1]) ** 2)"),
            "the noise is the same at each level",
        ),
        (changed(ANNEALED, "return x", "return x.mean()"), "a tensor of the shape of x"),
        (changed(ANNEALED, "score(x, sigma)", "score(0 * x, sigma)"), "ends in the left heap"),
    ],
    "11.5": [
        (
            MEASURE + "return ((x[-1] > 0).double().mean() - 0.7).abs()",
            "it ranks A, C and F behind the honest one, and cannot tell B and E from it",
        ),
        (MEASURE + "return (x[-1].abs() - 1).abs().mean()", "cannot tell A, B and C from it"),
        (
            MEASURE + "return (x[:-1].std(1) / torch.sqrt(0.84 * alphas**2 + sigmas**2) - 1).abs().max()",
            "it ranks A, B, C and F behind the honest one, and cannot tell E from it",
        ),
        (MEASURE + "return x[-1, 0]", "it ranks none behind the honest one"),
        (MEASURE + "return x[-1].std()", "cannot tell"),
        (MEASURE + "return x.std(1)", "a measure is one number"),
        (MEASURE + "return float('nan') * x[0, 0]", "not finite"),
    ],
    "11.6": [
        ("def my_basins(start, weights, means, stds):\n    return weights", "these are the weights of the density"),
        (
            "def my_basins(start, weights, means, stds):\n    return torch.ones_like(weights) / len(weights)",
            "these are equal shares",
        ),
        (changed(BASINS, "argmax", "argmin"), "the sign is turned"),
        (changed(BASINS, "minlength=len(means))", "minlength=len(means)).flip(0)"), "wrong order"),
        (changed(BASINS, " / len(start)", ""), "these are numbers of walkers"),
        (
            changed(BASINS, "own = log_p.argmax", "own = (start[:, None] - means).abs().argmin"),
            "for equal widths alone",
        ),
        (changed(BASINS, "own = log_p.argmax", "own = log_p.exp().argmax"), "the first of equals was taken"),
        (
            changed(
                BASINS,
                "    return torch.bincount",
                "    p = log_p.exp()\n    return (p / p.sum(1, keepdim=True)).mean(0)\n    torch.bincount",
            ),
            "there is a 0/0",
        ),
        (
            changed(
                BASINS,
                "return torch.bincount(own, minlength=len(means)) / len(start)",
                "shares = weights * torch.bincount(own, minlength=len(means))\n    return shares / shares.sum()",
            ),
            "the weights are counted once more",
        ),
        (BASINS_BY_ANNEALING, "nearly the weights of the density"),
        (changed(BASINS, "minlength=len(means)", "minlength=4"), "one share for each heap"),
        (changed(BASINS, "own = log_p.argmax(dim=1)", "own = (start > 0).long()"), "in a way that is not"),
    ],
}

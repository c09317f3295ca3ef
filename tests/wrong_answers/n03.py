HEAD = "def my_posterior(x_k, x_0, beta, alpha_bar, alpha_bar_before):\n"
ON_X_K = "    on_x_k = (1 - beta) ** 0.5 * (1 - alpha_bar_before) / (1 - alpha_bar)\n"
ON_X_0 = "    on_x_0 = alpha_bar_before**0.5 * beta / (1 - alpha_bar)\n"
VARIANCE = "    variance = beta * (1 - alpha_bar_before) / (1 - alpha_bar)\n"
MEAN = "    mean = on_x_k * x_k + on_x_0 * x_0\n"
RETURN = "    return mean, variance\n"
RIGHT_MEAN = HEAD + ON_X_K + ON_X_0 + MEAN

VARIANCE_LOOP = """
def my_variance(betas, tilde):
    alpha_bars = torch.cat([torch.ones(1), torch.cumprod(1 - betas, 0)])
    variance = 1.0
    for k in range(len(betas), 0, -1):
        added = betas[k - 1]
        if tilde:
            added = added * (1 - alpha_bars[k - 1]) / (1 - alpha_bars[k])
        variance = (1 - betas[k - 1]) * variance + (added if k > 1 else 0)
    return variance
"""

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "3.1": [
        (RIGHT_MEAN + VARIANCE + "    return mean, variance**0.5\n", "this is the standard deviation"),
        (RIGHT_MEAN + "    return mean, beta\n", "this is beta"),
        (RIGHT_MEAN + "    return mean, beta * (1 - alpha_bar) / (1 - alpha_bar_before)\n", "upside down"),
        (RIGHT_MEAN + "    return mean, beta * (1 - alpha_bar_before)\n", "not divided by"),
        (RIGHT_MEAN + "    return mean, beta * 7\n", "the mean is right, but the variance is not"),
        (RIGHT_MEAN + "    return mean\n", "return mean, variance"),
        (HEAD + ON_X_K + ON_X_0 + VARIANCE + "    return on_x_k * x_0 + on_x_0 * x_k, variance\n", "changed places"),
        (
            HEAD + ON_X_K + ON_X_0.replace("alpha_bar_before**0.5", "alpha_bar**0.5") + MEAN + VARIANCE + RETURN,
            "where sqrt(alpha_bar_{k-1}) belongs",
        ),
        (
            HEAD + ON_X_K.replace("(1 - beta) ** 0.5 * ", "") + ON_X_0 + MEAN + VARIANCE + RETURN,
            "lacks its sqrt(1 - beta)",
        ),
        (
            HEAD + ON_X_K.replace(" ** 0.5", "") + ON_X_0.replace("**0.5", "") + MEAN + VARIANCE + RETURN,
            "the roots are missing",
        ),
        (
            RIGHT_MEAN.replace("/ (1 - alpha_bar)", "/ (1 - alpha_bar_before)") + VARIANCE + RETURN,
            "divided by 1 - alpha_bar_{k-1}",
        ),
        (HEAD + "    return (1 - beta) ** 0.5 * x_k, beta\n", "the mean of the step forward"),
    ],
    "3.2": [
        (
            "def my_denoiser(x_k, alpha_bar):\n    return torch.sigmoid(2 * alpha_bar**0.5 * x_k / (1 - alpha_bar))",
            "the probability of +1",
        ),
        ("def my_denoiser(x_k, alpha_bar):\n    return torch.sign(x_k)", "the more likely"),
        (
            "def my_denoiser(x_k, alpha_bar):\n    return torch.tanh(alpha_bar**0.5 * x_k / (1 - alpha_bar) ** 0.5)",
            "divided by sigma, the standard deviation",
        ),
        (
            "def my_denoiser(x_k, alpha_bar):\n    return torch.tanh(2 * alpha_bar**0.5 * x_k / (1 - alpha_bar))",
            "factor 2 too many",
        ),
        (
            "def my_denoiser(x_k, alpha_bar):\n    return torch.tanh(alpha_bar**0.5 * x_k / (2 * (1 - alpha_bar)))",
            "a factor 2 is missing",
        ),
        (
            "def my_denoiser(x_k, alpha_bar):\n    return torch.tanh(alpha_bar * x_k / (1 - alpha_bar))",
            "its root belongs",
        ),
        ("def my_denoiser(x_k, alpha_bar):\n    return x_k / alpha_bar**0.5", "nothing was averaged"),
        ("def my_denoiser(x_k, alpha_bar):\n    return alpha_bar**0.5 * x_k", "straight line"),
    ],
    "3.3": [
        (VARIANCE_LOOP.replace("(added if k > 1 else 0)", "added"), "the sampler adds none there"),
        (VARIANCE_LOOP.replace("(1 - betas[k - 1]) * variance", "(1 - betas[k - 1]) ** 0.5 * variance"), "by 1 - beta"),
        (VARIANCE_LOOP.replace("(added if", "(added**0.5 if"), "no root is taken"),
        (VARIANCE_LOOP.replace("(1 - betas[k - 1]) * variance", "variance"), "the variance shrinks with it"),
        (
            VARIANCE_LOOP.replace("    variance = 1.0", "    betas, variance = betas.flip(0), 1.0"),
            "from k = T down to 1",
        ),
        (VARIANCE_LOOP.replace("if tilde", "if False"), "this is the answer for beta"),
        (
            VARIANCE_LOOP.replace("(1 - alpha_bars[k])\n", "(1 - alpha_bars[k])\n            added = added**0.5\n"),
            "a root was taken",
        ),
        (VARIANCE_LOOP.replace("alpha_bars[k - 1]", "0.0"), "with beta-tilde it is not"),
    ],
    "3.4": [
        ("def my_statistic(x):\n    return x[0].var()", "finds none"),
        ("def my_statistic(x):\n    return x[0].abs().mean()", "finds B and D, and takes C for honest"),
        ("def my_statistic(x):\n    return x[50].var()", "finds C, and takes B and D for honest"),
        ("def my_statistic(x):\n    return x[0].abs().std()", "finds B, and takes C and D for honest"),
        ("def my_statistic(x):\n    return 0 / (x[0] * 0).sum()", "not finite"),
    ],
}

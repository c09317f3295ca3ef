"""For each exercise the wrong answers that people give, and words of what each must be told.

notebook -> number of the exercise -> [(code that replaces the stub, words of the diagnosis), ...]
"""

WRONG_ANSWERS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "00_quickstart": {
        "0.1": [
            ("half_time = 0.5**0.5", "the amplitude"),
            ("half_time = torch.pi / 4", "angle divided by pi/2"),
            ("half_time = 45", "degrees"),
            ("half_time = 0.3", "off by up to 0.2"),
        ],
        "0.2": [
            ("def my_q_sample(x_0, eps, alpha, sigma):\n    return alpha * x_0 + sigma**2 * eps", "standard deviation"),
            ("def my_q_sample(x_0, eps, alpha, sigma):\n    return x_0 + sigma * eps", "does not shrink"),
            ("def my_q_sample(x_0, eps, alpha, sigma):\n    return sigma * x_0 + alpha * eps", "changed places"),
            ("def my_q_sample(x_0, eps, alpha, sigma):\n    return alpha * x_0 - sigma * eps", "it is added"),
            ("def my_q_sample(x_0, eps, alpha, sigma):\n    return (x_0 + eps).mean()", "shape"),
        ],
        "0.3": [
            ("my_labels = [7] * 16", "a tensor was asked for"),
            ("my_labels = torch.full((16,), 7.0)", "whole number"),
            ("my_labels = torch.full((10,), 7)", "16 labels"),
            ("my_labels = torch.nn.functional.one_hot(torch.full((16,), 7), 10)", "one-hot"),
            ("my_labels = torch.arange(16) % 10", "other digits than seven"),
        ],
    },
    "01_forward_process": {
        "1.1": [
            (
                "def my_step(x, beta, eps):\n    return (1 - beta) ** 0.5 * x + beta * eps",
                "standard deviation sqrt(beta)",
            ),
            ("def my_step(x, beta, eps):\n    return x + beta**0.5 * eps", "does not shrink"),
            ("def my_step(x, beta, eps):\n    return (1 - beta) * x + beta**0.5 * eps", "1 / (2 - beta)"),
            ("def my_step(x, beta, eps):\n    return (1 - beta) * x + beta * eps", "both roots are missing"),
            ("def my_step(x, beta, eps):\n    return beta**0.5 * x + (1 - beta) ** 0.5 * eps", "changed places"),
            ("def my_step(x, beta, eps):\n    return (1 - beta) ** 0.5 * x", "no noise is added"),
            (
                "def my_step(x, beta, eps):\n    return (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn_like(x)",
                "draw none",
            ),
        ],
        "1.2": [
            ("steps = 228", "the variance"),
            ("steps = 455", "round up"),
            ("steps = 461", "taken to be -beta"),
            ("steps = 198", "log10"),
            ("steps = 50", "61 %"),
            ("steps = 100", "off by up to"),
        ],
        "1.3": [
            ("def my_statistic(x, eps):\n    return x.var(1)", "finds A and D, and takes C for honest"),
            ("def my_statistic(x, eps):\n    return x.mean(1)", "finds D, and takes A and C for honest"),
            (
                "def my_statistic(x, eps):\n    return (x[1:] * eps).mean()",
                "finds A and C, and takes D for honest",
            ),
            ("def my_statistic(x, eps):\n    return eps.var(1)", "finds none"),
            ("def my_statistic(x, eps):\n    return (x[1:] - x[:-1]).var()", "takes C and D for honest"),
            ("def my_statistic(x, eps):\n    return (eps > 9).sum() / (eps > 9).sum()", "not finite"),
        ],
    },
}

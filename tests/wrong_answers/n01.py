WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
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
}

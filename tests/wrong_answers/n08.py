STEP = """
def my_step(x_t, x_0_hat, alpha_s, sigma_s, alpha_t, sigma_t, z):
    rho = (alpha_t / sigma_t) ** 2 / (alpha_s / sigma_s) ** 2
    kappa = alpha_t * sigma_s**2 / (alpha_s * sigma_t**2)
    mean = kappa * x_t + alpha_s * (1 - rho) * x_0_hat
    eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
    width = sigma_s * torch.sqrt(1 - rho)
    return mean + width * z
"""
CLIPPED = """
def my_clipped_step(x_t, eps_hat, alpha_s, sigma_s, alpha_t, sigma_t, std, z):
    x_0_hat = ((x_t - sigma_t * eps_hat) / alpha_t).clamp(-1, 1)
    eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
    return alpha_s * x_0_hat + torch.sqrt(sigma_s**2 - std**2) * eps_hat + std * z
"""
CIRCLE = """
def my_step(x_t, x_0_hat, alpha_s, sigma_s, alpha_t, sigma_t, z):
    alpha_bar, before = alpha_t**2, alpha_s**2
    beta = 1 - alpha_bar / before
    on_x_t = torch.sqrt(1 - beta) * sigma_s**2 / sigma_t**2
    return on_x_t * x_t + torch.sqrt(before) * beta / sigma_t**2 * x_0_hat + torch.sqrt(beta) * sigma_s / sigma_t * z
"""
DIVIDES = """
def my_step(x_t, x_0_hat, alpha_s, sigma_s, alpha_t, sigma_t, z):
    r = alpha_t / alpha_s
    b = sigma_t**2 - r**2 * sigma_s**2
    precision = r**2 / b + 1 / sigma_s**2
    return (r * x_t / b + alpha_s * x_0_hat / sigma_s**2) / precision + z / torch.sqrt(precision)
"""

NOISY_CLIPPED = CLIPPED.replace(".clamp(-1, 1)", "").replace("+ std * z", "+ std * z).clamp(-1, 1)")
NOISY_CLIPPED = NOISY_CLIPPED.replace("return ", "return (")
NOISE_CLIPPED = CLIPPED.replace(".clamp(-1, 1)", "")
NOISE_CLIPPED = NOISE_CLIPPED.replace("    x_0_hat =", "    eps_hat = eps_hat.clamp(-1, 1)\n    x_0_hat =")
HALF_CLIPPED = CLIPPED.replace("    x_0_hat =", "    raw = (x_t - sigma_t * eps_hat) / alpha_t\n    x_0_hat =")
HALF_CLIPPED = HALF_CLIPPED.replace("return alpha_s * x_0_hat", "return alpha_s * raw")


def step(right: str, wrong: str) -> str:
    assert right in STEP
    return STEP.replace(right, wrong)


def clipped(right: str, wrong: str) -> str:
    assert right in CLIPPED
    return CLIPPED.replace(right, wrong)


def three(with_beta_tilde: str, with_b: str) -> str:
    return f"with_beta_tilde, with_b = {with_beta_tilde}, {with_b}"


def measure(body: str) -> str:
    return f"def my_measure(samples, data):\n    {body}"


STROKES = "stroke = data.responsibilities(samples).argmax(1)\n    "

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "8.1": [
        (step("mean + width * z", "mean + width**2 * z"), "multiplied by the variance"),
        (step("width = sigma_s", "width = sigma_t"), "sigma_s belongs where sigma_t stands"),
        (step("mean + width * z", "mean"), "no noise in it"),
        (step("mean + width * z", "alpha_s * x_0_hat + sigma_s * z"), "was thrown away"),
        (step("mean + width * z", "alpha_s * x_0_hat + sigma_s * eps_hat"), "nothing new is drawn"),
        (step("mean + width * z", "alpha_s * x_0_hat + sigma_s * eps_hat + width * z"), "more than sigma_s^2"),
        (CIRCLE, "right where alpha^2 + sigma^2 = 1"),
        (step("kappa * x_t + alpha_s * (1 - rho) * x_0_hat", "kappa * x_0_hat + alpha_s * (1 - rho) * x_t"), "changed"),
        (step("alpha_s * (1 - rho) * x_0_hat", "alpha_s * rho * x_0_hat"), "rho stands where 1 - rho"),
        (DIVIDES, "to s = 0, it is not"),
    ],
    "8.2": [
        ("gray_levels = 0.0628", "on the scale from -1 to 1"),
        ("gray_levels = 0.0628 * 255", "255 gray levels are 2"),
        ("gray_levels = 0.0628**2 * 127.5", "made from the variance"),
        ("gray_levels = 0.01 * 127.5", "the table of DDPM"),
        ("gray_levels = 0", "with beta-tilde there is indeed"),
        ("import math\ngray_levels = math.sin(math.pi / 2 * 24 / 25) * 127.5", "the time 24/25"),
        ("gray_levels = 20", "off by up to"),
    ],
    "8.3": [
        (three("3 / 4", "17 / 48"), "the two have changed places"),
        (three("0.75 ** 0.5 * (3 / 4 * 3 ** -0.5 + 2 / 9)", "3 / 4"), "multiplied by G"),
        (three("3 / 4 + 2 / 9", "3 / 4"), "before it adds its own"),
        (three("1", "1"), "this is what the data have"),
        (three("17 / 36", "1"), "the last step has not been taken yet"),
        (three("17 / 48", "1"), "noise was added in the last step"),
        (three("17 / 48", "17 / 48"), "beta-tilde again"),
        (three("17 / 48", "0.75 ** 0.5 * (3 ** -0.5 + 2 / 3)"), "is right; with b: the variance is multiplied by G^2"),
        (three("17 / 48", "0.5"), "off by up to"),
    ],
    "8.4": [
        (clipped("    eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t\n", ""), "eps_hat is the old one"),
        (clipped(".clamp(-1, 1)", ""), "nothing was clipped"),
        (NOISY_CLIPPED, "x_s was clipped"),
        (NOISE_CLIPPED, "eps_hat was clipped"),
        (HALF_CLIPPED, "the unclipped one is still in the step"),
        (clipped("torch.sqrt(sigma_s**2 - std**2)", "sigma_s"), "kept whole"),
        (clipped("torch.sqrt(sigma_s**2 - std**2)", "(sigma_s**2 - std**2)"), "its root belongs there"),
        (clipped("torch.sqrt(sigma_s**2 - std**2)", "(sigma_s - std)"), "is not the root"),
    ],
    "8.5": [
        (measure("return (samples.mean(0) - data.mean).abs().sum()"), "and takes A and B for honest"),
        (
            "from diffusion_edu import energy_distance\n\n"
            + measure("return energy_distance(samples, data.sample(1500, torch.Generator().manual_seed(1))).value"),
            "finds A and D, and takes B for honest",
        ),
        (measure("return -data.log_prob(samples).mean()"), "finds B, and takes A and D for honest"),
        (
            measure(
                STROKES + "share = torch.bincount(stroke, minlength=3) / len(samples)\n    "
                "return (share - data.weights)[0]"
            ),
            "take magnitudes",
        ),
        (measure("return bool(samples.mean() > 0)"), "not with True or False"),
        (measure("return (samples.mean(0) - data.mean).abs()"), "with one number"),
        (measure("return samples.std() / 0.0 * 0.0"), "not finite"),
    ],
}

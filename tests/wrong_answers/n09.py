STEP = """
def my_step(x_t, x_0_hat, z, alpha_t, sigma_t, alpha_s, sigma_s, eta):
    eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
    rho = (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2
    omega = eta * sigma_s * torch.sqrt(1 - rho)
    return alpha_s * x_0_hat + torch.sqrt(sigma_s**2 - omega**2) * eps_hat + omega * z
"""

INVERSION = """
def my_exact_inversion(denoiser, x_0, times):
    x, upwards = x_0, times.flip(0)
    for s, t in zip(upwards[:-1], upwards[1:]):
        alpha_s, sigma_s = denoiser.schedule.alpha(s), denoiser.schedule.sigma(s)
        alpha_t, sigma_t = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        x_t = x
        for _ in range(40):
            eps_hat = (x_t - alpha_t * denoiser(x_t, t)) / sigma_t
            x_t = alpha_t * (x - sigma_s * eps_hat) / alpha_s + sigma_t * eps_hat
        x = x_t
    return x
"""

EDIT = """
def my_edit(denoiser, x_0, labels, new_labels, times):
    *_, top = invert(denoiser, x_0, times, labels, iterations=4)
    return sample(ddim(), denoiser, top.x, times, new_labels)
"""

DIGITS = """
def my_digit_edit(denoiser, x_0, labels, new_labels, times):
    x, upwards = x_0, times.flip(0)
    for s, t in zip(upwards[:-1], upwards[1:]):
        alpha_s, sigma_s = denoiser.schedule.alpha(s), denoiser.schedule.sigma(s)
        alpha_t, sigma_t = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        x_0_hat = denoiser(x, t, labels)
        if alpha_t > sigma_t:
            eps_hat = (x - alpha_t * x_0_hat) / sigma_t
            x = alpha_t * (x - sigma_s * eps_hat) / alpha_s + sigma_t * eps_hat
        else:
            x = alpha_t * x_0_hat + sigma_t * (x - alpha_s * x_0_hat) / sigma_s
    return sample(ddim(), denoiser, x, times, new_labels)
"""

INVERT_HEAD = "def my_exact_inversion(denoiser, x_0, times):\n"
MEASURE = "def my_measure(x, mixture):\n    return "


def step(right: str, wrong: str) -> str:
    assert right in STEP
    return STEP.replace(right, wrong)


def inversion(right: str, wrong: str) -> str:
    assert right in INVERSION
    return INVERSION.replace(right, wrong)


def edit(right: str, wrong: str) -> str:
    assert right in EDIT
    return EDIT.replace(right, wrong)


def digits(right: str, wrong: str) -> str:
    assert right in DIGITS
    return DIGITS.replace(right, wrong)


DIGITS_HEAD = "def my_digit_edit(denoiser, x_0, labels, new_labels, times):\n"


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "9.1": [
        (step(" + omega * z", ""), "std z is missing"),
        (step("torch.sqrt(sigma_s**2 - omega**2)", "sigma_s"), "the old noise is kept in full"),
        (step("+ omega * z", "+ omega**2 * z"), "multiplied by its variance"),
        (step("eta * sigma_s * torch.sqrt(1 - rho)", "eta * sigma_t * torch.sqrt(1 - rho)"), "the step forward"),
        (step("torch.sqrt(1 - rho)", "(1 - rho)"), "the standard deviation needs its root"),
        (step("torch.sqrt(sigma_s**2 - omega**2)", "(sigma_s - omega)"), "variances subtract"),
        (step("eta * sigma_s", "eta**0.5 * sigma_s"), "here it multiplies the variance"),
        (step("eta * sigma_s * torch.sqrt(1 - rho)", "eta * sigma_s"), "not of sigma_s"),
        (step("eta * sigma_s", "sigma_s"), "for eta = 1 whatever eta is"),
        (step("return alpha_s * x_0_hat", "return alpha_t * x_0_hat"), "in x_s it has alpha_s"),
        (step(" / sigma_t\n    rho", "\n    rho"), "was not divided by sigma_t"),
        (step("* eps_hat + omega", "* x_t + omega"), "x_t stands where eps_hat belongs"),
        (
            step("(alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2", "alpha_t * sigma_s / (alpha_s * sigma_t)"),
            "with eta = 0.6, the numbers are off",
        ),
    ],
    "9.2": [
        ("on_x_0, on_x_t = 0.6, 0.44", "changed places"),
        ("on_x_0, on_x_t = 0.35, 0.75", "the member without new noise"),
        ("on_x_0, on_x_t = 0.512, 0.48", "divide it by sigma_t"),
        ("on_x_0, on_x_t = 0.8, 0.6", "a + b alpha_t = alpha_s"),
        ("on_x_0, on_x_t = 0.62, 0.3", "deviations were subtracted"),
        ("on_x_0, on_x_t = 1.16, -0.6", "the noise turned over"),
        ("on_x_0, on_x_t = 0.546875, 0.421875", "the posterior's"),
        ("on_x_0, on_x_t = 0.5, 0.5", "off by up to"),
    ],
    "9.3": [
        (inversion("range(40)", "range(1)"), "each step asks once"),
        (inversion("range(40)", "range(4)"), "more rounds at each step"),
        (
            INVERT_HEAD + "    *_, top = invert(denoiser, x_0, times)\n    return top.x\n",
            "what invert() gives",
        ),
        (
            """
def my_exact_inversion(denoiser, x_0, times):
    x, upwards = x_0, times.flip(0)
    for s, t in zip(upwards[:-1], upwards[1:]):
        schedule, asked = denoiser.schedule, (s if s > 0 else t)
        eps_hat = (x - schedule.alpha(asked) * denoiser(x, asked)) / schedule.sigma(asked)
        x = schedule.alpha(t) * (x - schedule.sigma(s) * eps_hat) / schedule.alpha(s) + schedule.sigma(t) * eps_hat
    return x
""",
            "asked at s, the time that the step comes from",
        ),
        (INVERT_HEAD + "    return sample(ddim(), denoiser, x_0, times)\n", "this is the way down"),
        (INVERT_HEAD + "    return x_0\n", "the data as they came"),
        (INVERT_HEAD + "    return x_0 / 0\n", "not finite"),
        (INVERT_HEAD + "    return x_0[:10]\n", "have the shape (10, 1)"),
    ],
    "9.4": [
        (edit("times, new_labels)", "times, labels)"), "came back as they were"),
        (edit("times, labels, iterations=4)", "times, iterations=4)"), "inverted without a label"),
        (edit("times, labels, iterations=4)", "times, new_labels, iterations=4)"), "the labels that they should get"),
        (
            edit("times, labels, iterations=4)", "times, new_labels, iterations=4)").replace(
                "times, new_labels)\n", "times, labels)\n"
            ),
            "the other way round",
        ),
        (edit("top.x, times, new_labels)", "top.x, times)"), "went down without a label"),
        (edit("sample(ddim(), denoiser, top.x, times, new_labels)", "top.x"), "these are the noises"),
        (edit("top.x, times", "torch.randn_like(x_0), times"), "fresh noise is in it"),
        (edit("return sample", "return 2 * sample"), "these are not the edited points"),
        (edit("top.x, times, new_labels)", "top.x, times, new_labels)[:5]"), "have the shape (5, 2)"),
    ],
    "9.5": [
        (MEASURE + "x.var()", "finds C and F, and takes B and E for honest"),
        (MEASURE + "x.mean()", "finds none of the four"),
        (MEASURE + "x.std() / (x * 0).sum()", "not finite"),
    ],
    "9.6": [
        (
            digits("denoiser, x, times, new", "denoiser, torch.randn_like(x), times, new"),
            "the distance to their own originals is",
        ),
        (digits("(x, t, labels)", "(x, t, new_labels)"), "the labels that they should get"),
        (digits("(x, t, labels)", "(x, t)"), "inverted without a label"),
        (digits("x, times, new_labels)", "x, times, labels)"), "came back as they were"),
        (
            digits("(x, t, labels)", "(x, t, new_labels)").replace("x, times, new_labels)", "x, times, labels)"),
            "the other way round",
        ),
        (digits("x, times, new_labels)", "x, times)"), "went down without a label"),
        (digits("sample(ddim(), denoiser, x, times, new_labels)", "x"), "these are the noises"),
        (digits("times.flip(0)", "times.flip(0)[:-1]"), "the walk up stops at times[1]"),
        (
            DIGITS_HEAD + "    x = sample(ddim(), denoiser, x_0, times, labels)\n"
            "    return sample(ddim(), denoiser, x, times, new_labels)\n",
            "the first walk goes down too",
        ),
        (digits("times.flip(0)", "times"), "your code raised ValueError"),
        (digits("denoiser, x, times", "denoiser, x_0, times"), "it has to go up first"),
        (
            digits("denoiser(x, t, labels)", "denoiser(x, s if s > 0 else t, labels)").replace(
                "if alpha_t > sigma_t", "if s == 0"
            ),
            "asked at s, the time that the step comes from",
        ),
        (digits("if alpha_t > sigma_t", "if True"), "whose weak place is the noisy end"),
        (DIGITS_HEAD + "    return x_0 / 0\n", "not finite"),
        (DIGITS_HEAD + "    return x_0[:10]\n", "have the shape (10, 1, 28, 28)"),
        (DIGITS_HEAD + "    return x_0.flip(0)\n", "the classifier sees the new label in"),
    ],
}

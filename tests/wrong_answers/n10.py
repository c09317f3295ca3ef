FREE = """
def my_free_guidance(denoiser, x_t, t, labels, w):
    u, c = denoiser(x_t, t), denoiser(x_t, t, labels)
    return """
PUSHED = "def my_pushed(w, m, v):\n    return "
EPS = """
def my_guided_eps(eps_net, classifier, x_t, t, labels, w, alpha, sigma):
    x = x_t.detach().requires_grad_()
    log_p = torch.log_softmax(classifier(x, t), dim=1)
    own = log_p[torch.arange(len(x)), labels].sum()
    (slope,) = torch.autograd.grad(own, x)
    return eps_net(x_t, t) - w * sigma * slope
"""
TRADE = """
def my_trade(draw, log_p, scales):
    def spread(x, asked):
        return sum(x[asked == k].var(dim=0).sum() for k in (0, 1)) / 2

    plain = spread(*draw(1.0))
    rows = []
    for w in scales:
        x, asked = draw(w)
        p = log_p(x).exp()[torch.arange(len(x)), asked]
        rows.append((p.mean(), spread(x, asked) / plain))
    return rows
"""
WITHIN = "sum(x[asked == k].var(dim=0).sum() for k in (0, 1)) / 2"
OWN_P = "log_p(x).exp()[torch.arange(len(x)), asked]"


def in_trade(*changes: tuple[str, str]) -> str:
    program = TRADE
    for right, wrong in changes:
        assert program.count(right) == 1, right
        program = program.replace(right, wrong)
    return program


def in_eps(right: str, wrong: str) -> str:
    assert right in EPS
    return EPS.replace(right, wrong)


def testing(w: str, t: str = "0.4", expected: str = "u + w * (c - u)", atol: str = "1e-6") -> str:
    return f"""
def my_test(program, denoiser):
    x_t = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor({t}, dtype=torch.float64)
    labels = torch.arange(100) % 2
    w = {w}
    u, c = denoiser(x_t, t), denoiser(x_t, t, labels)
    return bool((program(x_t, t, labels, w) - ({expected})).abs().mean() < {atol})
"""


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "10.1": [
        (FREE + "c + w * (c - u)", "the other convention"),
        (FREE + "c + w * (u - c)", "the two answers have changed places"),
        (FREE + "w * (c - u)", "the difference alone"),
        (FREE + "u + w * (u - c)", "away from the label"),
        (FREE + "c", "the scale does nothing"),
        (FREE + "u + w * c", "before the whole answer"),
        (
            "def my_free_guidance(denoiser, x_t, t, labels, w):\n    u = denoiser(x_t, t, torch.zeros_like(labels))\n"
            "    return u + w * (denoiser(x_t, t, labels) - u)",
            "class 0 stands where no label belongs",
        ),
        (FREE + "(u + w * c) / (1 + w)", "off by up to"),
    ],
    "10.2": [
        ("scales = 0.5, 7.5, 4.0, 2.0", "the first is still in the paper's own convention"),
        ("scales = -0.5, 7.5, 4.0, 2.0", "in the first, 1 is to be added"),
        ("scales = 1.5, 8.5, 4.0, 2.0", "the second needs no translation"),
        ("scales = [1.5, 7.5, 3, 2]", "in the third, g = 0 already gives c"),
        ("scales = 1.5, 7.5, 2, 2", "in the third, 1 is to be added"),
        ("scales = 1.5, 7.5, 4.0, -1", "k stands before the answer without a label"),
        ("scales = 1.5, 7.5, 4.0, 0", "in the fourth, look at k = 0"),
        ("scales = 1.5, 7.5, 4.0", "the shape is"),
    ],
    "10.3": [
        (PUSHED + "(2 * w - 1) * m, v", "the second number is the variance"),
        (PUSHED + "(2 * w + 1) * m, v ** 0.5", "w steps on from the wanted class"),
        (PUSHED + "w * m, v ** 0.5", "starts between the classes"),
        (PUSHED + "2 * w * m, v ** 0.5", "the start is -m, not 0"),
        (PUSHED + "(1 - 2 * w) * m, v ** 0.5", "the sign of the mean is turned"),
        (PUSHED + "(2 * w - 1) * m, (v / w) ** 0.5", "the spread is not"),
        (PUSHED + "(2 * w - 1) * m", "return two numbers"),
    ],
    "10.4": [
        (in_eps("- w * sigma", "+ w * sigma"), "the sign is turned"),
        (in_eps("w * sigma", "w * sigma**2 / alpha"), "the factor for x_0_hat; eps_hat takes another"),
        (in_eps("- w * sigma", "+ w * sigma**2 / alpha"), "both the sign and the factor"),
        (in_eps("w * sigma", "w"), "sigma is missing"),
        (in_eps("w * sigma", "w * sigma**2"), "one sigma too many"),
        (in_eps("torch.log_softmax(classifier(x, t), dim=1)", "classifier(x, t)"), "the slopes of the logits"),
        (in_eps("log_softmax", "softmax"), "this is the slope of p"),
        (in_eps(".sum()", ".mean()"), "a mean over the batch"),
        (in_eps("log_p[torch.arange(len(x)), labels].sum()", "log_p.sum()"), "log p of all classes was added up"),
    ],
    "10.5": [
        (testing("1.0"), "finds A, C and E, and takes D for honest"),
        (testing("0.0"), "finds C and D, and takes A and E for honest"),
        (testing("2.0", t="0.05", atol="0.002"), "finds A, C and D, and takes E for honest"),
        (testing("2.0", expected="c + w * (c - u)"), "accuses program B"),
        (
            "def my_test(program, denoiser):\n    x_t, t = torch.zeros(4, 2), torch.tensor(0.5)\n"
            "    labels = torch.zeros(4, dtype=torch.long)\n"
            "    return program(x_t, t, labels, 1.0) == denoiser(x_t, t, labels)",
            "answers True for honest or False",
        ),
        ("def my_test(program, denoiser):\n    return True", "finds none of the four"),
    ],
    "10.6": [
        (in_trade((WITHIN, "x.var(dim=0).sum()")), "it grows with the scale"),
        (in_trade((WITHIN, "x.var(dim=0).sum()"), ("draw(1.0)", "draw(0.0)")), "together, and it is divided by"),
        (in_trade((WITHIN, "x.var(dim=0).sum()"), (" / plain", "")), "together, and divided by nothing"),
        (in_trade(("draw(1.0)", "draw(0.0)")), "is w = 1, the plain answer to the label"),
        (in_trade((" / plain", "")), "divide it by that of the samples without guidance"),
        (in_trade((WITHIN, f"({WITHIN}) ** 0.5")), "a ratio of standard deviations"),
        (in_trade(("spread(x, asked) / plain", "plain / spread(x, asked)")), "upside down"),
        (
            in_trade((WITHIN, "sum(x[log_p(x).argmax(1) == k].var(dim=0).sum() for k in (0, 1)) / 2")),
            "Sort them by what was asked for",
        ),
        (in_trade((WITHIN, "x[asked == 0].var(dim=0).sum()")), "that of class 0 alone"),
        (in_trade((WITHIN, "sum(x[asked == k, 0].var() for k in (0, 1)) / 2")), "the first coordinate alone"),
        (in_trade((WITHIN, "sum(x[asked == k].norm(dim=1).var() for k in (0, 1)) / 2")), "the diversity is wrong"),
        (in_trade((OWN_P, "log_p(x)[torch.arange(len(x)), asked]")), "a mean of log p"),
        (
            in_trade((OWN_P, "log_p(x)[torch.arange(len(x)), asked]"), ("p.mean()", "p.mean().exp()")),
            "exp of the mean of log p",
        ),
        (in_trade((OWN_P, "(log_p(x).argmax(1) == asked).double()")), "is the likelier one"),
        (in_trade((OWN_P, "log_p(x).exp().max(1).values")), "whatever was asked for"),
        (in_trade((OWN_P, "log_p(x).exp()[:, 0]")), "p of class 0 for all samples"),
        (in_trade((OWN_P, "log_p(x).exp()[torch.arange(len(x)), 1 - asked]")), "that was not asked for"),
        (in_trade((OWN_P, f"{OWN_P} ** 2")), "the fidelity is wrong"),
        (in_trade(("draw(w)", "draw(1 + w)")), "those of the scale 1 + w"),
        (in_trade(("p.mean(), spread(x, asked) / plain", "spread(x, asked) / plain, p.mean()")), "changed places"),
        (in_trade(("p.mean(), spread(x, asked) / plain", "p.mean()")), "a pair of numbers for each scale"),
        (in_trade(("return rows", "return torch.tensor(rows).T")), "The shape is (2, 4)"),
    ],
}

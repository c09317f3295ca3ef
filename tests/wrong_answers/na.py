PRODUCT = "def my_product(m_1, v_1, m_2, v_2):\n    v = 1 / (1 / v_1 + 1 / v_2)\n    m = v * (m_1 / v_1 + m_2 / v_2)\n"
DENOISER = "import math\ndef my_denoiser(x, s, w):\n    odds = math.log(w / (1 - w))\n"
MONTE_CARLO = (
    "import math\nfrom diffusion_edu import Normal\n"
    "def my_test(kl):\n"
    "    m_1, s_1, m_2, s_2 = 0.3, 0.6, -0.5, 1.7\n"
    "    p = Normal(torch.full((20_000,), m_1), torch.tensor(s_1))\n"
    "    q = Normal(torch.full((20_000,), m_2), torch.tensor(s_2))\n"
)

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "A.1": [
        (PRODUCT + "    return (m_1 + m_2) / 2, v", "plain average"),
        (PRODUCT + "    return (v_1 * m_1 + v_2 * m_2) / (v_1 + v_2), v", "changed places"),
        (PRODUCT + "    return m, 1 / v_1 + 1 / v_2", "still the precision"),
        (PRODUCT + "    return m, v**0.5", "standard deviation: the variance was asked"),
        (PRODUCT + "    return m, v_1 + v_2", "variances were added"),
        (PRODUCT + "    return m, 2 * v", "precisions were averaged"),
        (PRODUCT + "    return m / v, v", "divided by the precision"),
        (PRODUCT + "    return m_1 + m_2, v", "means were added"),
        (PRODUCT + "    return m", "two things"),
    ],
    "A.2": [
        ("bits = -2.21", "is missing"),
        ("bits = -9.20", "wrong sign"),
        ("bits = 5.464", "not turned into bits"),
        ("bits = 5.933", "multiplied by log 2"),
        ("bits = 5.792", "8 bits were added"),
        ("bits = 5.786", "from 0 to 1"),
        ("bits = 4.7935", "7 bits were added"),
        ("bits = 2.640", "in nats"),
        ("bits = -2.199", "each number"),
        ("bits = 3752.3", "the whole picture"),
        ("bits = -4.786", "turned around"),
        ("bits = 8.0", "off by up to"),
    ],
    "A.3": [
        (DENOISER + "    return torch.sigmoid(2 * x / s**2 + odds)", "probability of +1"),
        (DENOISER + "    return torch.sign(2 * x / s**2 + odds)", "more probable"),
        (DENOISER + "    return torch.tanh(x / s**2)", "w was forgotten"),
        (DENOISER + "    return torch.tanh(x / s + odds / 2)", "variance s^2"),
        (DENOISER + "    return torch.tanh(2 * x / s**2 + odds)", "a half is missing"),
        (DENOISER + "    return torch.tanh(x / s**2 + odds)", "same factor one half"),
        (DENOISER + "    return torch.tanh(x / s**2 - odds / 2)", "changed places"),
        (DENOISER + "    m, v = 2 * w - 1, 4 * w * (1 - w)\n    return m + v / (v + s**2) * (x - m)", "straight line"),
        (DENOISER + "    return 0 * x + 2 * w - 1", "does not look at x"),
        (DENOISER + "    return x", "x itself"),
    ],
    "A.4": [
        ("def my_test(kl):\n    return abs(kl(0, 1, 1, 1) - 0.5) < 1e-9", "finds none of the three"),
        (
            "def my_test(kl):\n    return all(kl(0, 1, 0, s) >= 0 for s in (0.6, 0.9, 1.0, 1.2, 2.0))",
            "finds B and D, and takes A for honest",
        ),
        ("def my_test(kl):\n    return abs(kl(0, 2, 1, 2) - 1 / 8) < 1e-9", "finds B, and takes A and D for honest"),
        (
            MONTE_CARLO + "    ratio = p.log_prob(x := q.sample()) - q.log_prob(x)\n"
            "    return bool(abs(ratio.mean() - kl(m_1, s_1, m_2, s_2)) < 6 * ratio.std() / math.sqrt(20_000))",
            "every time",
        ),
        (
            MONTE_CARLO + "    ratio = p.log_prob(x := p.sample()) - q.log_prob(x)\n"
            "    return bool(abs(ratio.mean() - kl(m_1, s_1, m_2, s_2)) < 0.5 * ratio.std() / math.sqrt(20_000))",
            "bad luck",
        ),
        ("def my_test(kl):\n    return kl(0, 1, 0, 2)", "True or False"),
    ],
}

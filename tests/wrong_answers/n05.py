V_OF = "def my_v(x_t, eps_hat, alpha, sigma):\n    return "
TRAINING = """
def my_training(network, draw, alpha_bar):
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    for _ in range(600):
        x_0 = draw(256)
        eps = torch.randn_like(x_0)
        x_k = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
        loss = ((network(x_k) - eps) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network
"""


def training(right: str, wrong: str) -> str:
    assert right in TRAINING
    return TRAINING.replace(right, wrong)


def testing(denoiser: str, expected: str, t: str = "torch.linspace(0.05, 0.95, 8, dtype=torch.float64)") -> str:
    return f"""
def my_test(program, schedule):
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 8, 2, generator=generator, dtype=torch.float64)
    t = {t}
    weight = torch.exp(schedule.log_snr(t)).clamp(max=5)
    loss = program(lambda x_t, t: {denoiser}, x_0, t, eps)
    return bool(torch.allclose(loss, {expected}, rtol=1e-6, atol=1e-9))
"""


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "5.1": [
        (
            V_OF + "sigma / alpha * (x_t - sigma * eps_hat) - alpha * eps_hat",
            "the sign is wrong",
        ),
        (V_OF + "alpha * eps_hat - sigma * x_t", "x_t stands where"),
        (
            V_OF + "(eps_hat - sigma * x_t) / alpha",
            "right where alpha^2 + sigma^2 = 1",
        ),
        (
            V_OF + "sigma * eps_hat - (x_t - sigma * eps_hat)",
            "changed places",
        ),
        (V_OF + "(x_t - sigma * eps_hat) / alpha", "this is x_0_hat"),
        (
            V_OF + "sigma / alpha * (x_t - sigma * eps_hat) + alpha * eps_hat",
            "a plus where v has a minus",
        ),
    ],
    "5.2": [
        ("loss_v = 0.30", "another size in another row"),
        ("loss_v = 1.5", "divided out first"),
        ("loss_v = 0.24", "upside down"),
        ("loss_v = 0.075", "the error in x_0; now multiply"),
        ("loss_v = 0.06", "never had it"),
        ("loss_v = 1.2", "SNR times the loss in eps"),
        ("loss_v = 0.31", "off by up to"),
    ],
    "5.3": [
        (training("- eps) ** 2", "- x_0) ** 2"), "it has learnt x_0"),
        (training("(network(x_k) - eps)", "(network(x_k) + eps)"), "its sign flipped"),
        (training("(network(x_k) - eps)", "(network(x_k) - torch.randn_like(eps))"), "it answers 0"),
        (training("- eps) ** 2", "+ eps / (1 - alpha_bar).sqrt()) ** 2"), "it has learnt the score"),
        (
            training(
                "alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps", "alpha_bar * x_0 + (1 - alpha_bar) * eps"
            ),
            "the roots are missing",
        ),
        (training("range(600)", "range(10)"), "above the floor"),
        (training("return network", "return loss"), "return the network itself"),
    ],
    "5.4": [
        (testing("x_0", "0 * t"), "finds E, and takes A, B and D for honest"),
        (
            testing("x_0 + t[:, None]", "weight * t**2", "torch.full((8,), 0.5, dtype=torch.float64)"),
            "finds A and E, and takes B and D for honest",
        ),
        (testing("x_0 + 0.1", "0.01 * weight"), "finds A, B and E, and takes D for honest"),
        (testing("x_0 + 0.1", "0.1 * weight"), "accuses program C"),
        (
            "def my_test(program, schedule):\n    x_0 = torch.zeros(4, 2)\n    return program(lambda x_t, t: x_t, "
            "x_0, torch.full((4,), 0.5), x_0) == 0",
            "answers True for honest or False",
        ),
    ],
}

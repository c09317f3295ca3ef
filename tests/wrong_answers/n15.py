LOSS = """
def my_loss(network, x_0, eps, t):
    x_t = (1 - t)[:, None] * x_0 + t[:, None] * eps
    return ((network(x_t, t) - (eps - x_0)) ** 2).mean(1)
"""
VELOCITY = """
def my_velocity(x, t, m, s):
    q = (1 - t) ** 2 * s**2 + t**2
    x_0_hat = m + (1 - t) * s**2 / q * (x - (1 - t) * m)
    return (x - x_0_hat) / t
"""
FLOW = """
def my_flow(eps_network, schedule, x, t):
    t_ddpm = schedule.time_at(2 * torch.log((1 - t) / t))
    x_ddpm = schedule.alpha(t_ddpm) / (1 - t) * x
    eps_hat = eps_network(x_ddpm, t_ddpm)
    x_0_hat = (x - t * eps_hat) / (1 - t)
    return eps_hat - x_0_hat
"""
STRAIGHT = """
def my_straightness(path):
    n = len(path) - 1
    velocity = (path[:-1] - path[1:]) * n
    return ((velocity - (path[0] - path[-1])) ** 2).mean()
"""


def with_(program: str, right: str, wrong: str) -> str:
    assert right in program
    return program.replace(right, wrong)


def testing(field: str, expected: str, tolerance: str = "", steps: int = 5) -> str:
    return f"""
def my_test(program):
    x, n = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2), {steps}
    arrived = program(lambda x, t: {field} + torch.zeros_like(x), x, n)
    return bool(torch.allclose(arrived, {expected} + torch.zeros_like(x){tolerance}))
"""


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "15.1": [
        (with_(LOSS, "(eps - x_0)", "(x_0 - eps)"), "the sign of the target is turned"),
        (
            with_(LOSS, "(1 - t)[:, None] * x_0 + t[:, None] * eps", "t[:, None] * x_0 + (1 - t)[:, None] * eps"),
            "your path has the noise at t = 0",
        ),
        (
            "def my_loss(network, x_0, eps, t):\n    x_t = torch.lerp(eps, x_0, t[:, None])\n"
            "    return (network(x_t, t) + eps - x_0).square().mean(1)",
            "the other convention",
        ),
        (with_(LOSS, "(eps - x_0)", "x_0"), "and not x_0"),
        (with_(LOSS, "(eps - x_0)", "eps"), "and not eps"),
        (with_(LOSS, "network(x_t, t)", "network(x_t, 1 - t)"), "is told 1 - t"),
        (with_(LOSS, "[:, None]", ""), "give it a second axis"),
        (with_(LOSS, ".mean(1)", ".sum(1)"), "this is the sum"),
        (with_(LOSS, ".mean(1)", ".mean()"), "one number for the batch"),
        (with_(LOSS, ".mean(1)", ".mean(0)"), "for each of the numbers"),
        (with_(LOSS, "** 2).mean(1)", ").abs().mean(1)").replace(" )", ")"), "the squares are missing"),
    ],
    "15.2": [
        (with_(VELOCITY, "(x - x_0_hat)", "(x_0_hat - x)"), "the sign is turned"),
        (with_(VELOCITY, "    q =", "    m = 0\n    q ="), "data of mean 0"),
        (with_(VELOCITY, "(x - x_0_hat)", "(x - m)"), "as if it were the x_0 of all"),
        (with_(VELOCITY, "s**2", "s"), "s is the standard deviation"),
        (with_(VELOCITY, "m + (1 - t) * s**2", "m + s**2"), "(1 - t) is missing in x_0_hat"),
        (with_(VELOCITY, "(1 - t) ** 2 * s**2 + t**2", "(1 - t) * s**2 + t**2"), "(1 - t) is to be squared"),
        (with_(VELOCITY, "s**2 + t**2", "s**2 + t"), "t is to be squared"),
        (with_(VELOCITY, "(x - x_0_hat) / t", "x_0_hat"), "this is x_0_hat"),
        (with_(VELOCITY, "(x - x_0_hat) / t", "-(x - (1 - t) * m) / q"), "this is the score"),
        (with_(VELOCITY, "(x - x_0_hat) / t", "x - x_0_hat"), "divided by the time"),
        (
            "def my_velocity(x, t, m, s):\n    q = (1 - t) ** 2 * s**2 + t**2\n"
            "    return (t - (1 - t) * s**2) / q * (x - (1 - t) * m)",
            "the mean's own motion is missing",
        ),
        (
            with_(VELOCITY, "(x - x_0_hat) / t", "(x - (1 - t) * x_0_hat) / t - x_0_hat").replace(
                "x_0_hat) / t - x_0_hat", "x_0_hat) / t * (1 - t) / (1 - t) - x_0_hat"
            ),
            "divides by 1 - t",
        ),
    ],
    "15.3": [
        (with_(FLOW, "eps_hat - x_0_hat", "x_0_hat - eps_hat"), "the sign is turned"),
        (with_(FLOW, "eps_network(x_ddpm, t_ddpm)", "eps_network(x, t)"), "at that t it has another SNR"),
        (
            with_(FLOW, "schedule.time_at(2 * torch.log((1 - t) / t))", "t"),
            "the place is translated, and the time is not",
        ),
        (with_(FLOW, "eps_network(x_ddpm, t_ddpm)", "eps_network(x, t_ddpm)"), "the place is not"),
        (
            with_(FLOW, "schedule.alpha(t_ddpm) / (1 - t) * x", "(1 - t) / schedule.alpha(t_ddpm) * x"),
            "wrong way round",
        ),
        (
            with_(
                FLOW, "(x - t * eps_hat) / (1 - t)", "(x - schedule.sigma(t_ddpm) * eps_hat) / schedule.alpha(t_ddpm)"
            ),
            "of the path that x is on",
        ),
        (with_(FLOW, "return eps_hat - x_0_hat", "return eps_hat"), "this is eps_hat"),
        (with_(FLOW, "return eps_hat - x_0_hat", "return x_0_hat"), "this is x_0_hat"),
        (with_(FLOW, "2 * torch.log((1 - t) / t)", "torch.log((1 - t) / t)"), "log SNR is twice"),
    ],
    "15.4": [
        (with_(STRAIGHT, " * n", ""), "the difference times n"),
        (with_(STRAIGHT, "(path[:-1] - path[1:])", "(path[1:] - path[:-1])"), "opposite directions"),
        (with_(STRAIGHT, ".mean()", ".sum()"), "this is the sum, and the mean"),
        (with_(STRAIGHT, ".mean()", ".sum(0).mean()"), "the sum over the steps"),
        (with_(STRAIGHT, "** 2).mean()", ").abs().mean()"), "the square is missing"),
        (with_(STRAIGHT, ".mean()", ".mean().sqrt()"), "the root of S"),
        (with_(STRAIGHT, " - (path[0] - path[-1])", ""), "still to be taken off"),
        (with_(STRAIGHT, "(path[0] - path[-1])", "(path[0] - path[-1]).mean()"), "each particle has its own"),
        (with_(STRAIGHT, ".mean()", ".mean(0)"), "one for each. Hint"),
        (with_(STRAIGHT, ".mean()", ".mean(1)"), "one for each step"),
    ],
    "15.5": [
        (testing("1", "x - 1"), "finds C, D and E, and takes A for honest"),
        (testing("(x - 0.3) / t", "0.3", ", atol=0.05", 1000), "finds A, C and D, and takes E for honest"),
        (testing("2 * t", "x - 1"), "accuses program B"),
        (
            "def my_test(program):\n    x = program(lambda x, t: -x, torch.ones(2, 2), 9)\n"
            "    return bool(x.isfinite().all())",
            "finds none of the four",
        ),
        (
            "def my_test(program):\n    x = torch.ones(2, 2)\n    return program(lambda x, t: t + 0 * x, x, 9) < 1",
            "answers True for honest or False",
        ),
    ],
}

ORDER = "import math\ndef my_order(error_coarse, error_fine, steps_coarse, steps_fine):\n    return "
WEIGHTS = """
def my_weights(lambda_before, lambda_t, lambda_s):
    h, h_before = lambda_s - lambda_t, lambda_t - lambda_before
    part = h / (2 * h_before)
    return 1 + part, -part
"""
SOLVER = """
def my_solver(f, y, t, end, tol, h):
    accepted = rejected = 0
    while t < end:
        h = min(h, end - t)
        k_1 = f(t, y)
        k_2 = f(t + h, y + h * k_1)
        error = abs(h / 2 * (k_2 - k_1)) / tol
        if error <= 1:
            t, y, accepted = t + h, y + h / 2 * (k_1 + k_2), accepted + 1
            if end - t < 1e-12:
                break
        else:
            rejected += 1
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-12) ** (-1 / 2)))
    return y, accepted, rejected
"""
GRID = """
def my_grid(c, p, N):
    fine = torch.linspace(1, 3, 10_001, dtype=torch.float64)
    share = torch.cumulative_trapezoid(c(fine) ** (1 / (p + 1)), fine)
    index = torch.searchsorted(share / share[-1], torch.linspace(0, 1, N + 1, dtype=torch.float64))
    return fine[index.clamp(max=len(fine) - 1)]
"""
HUNT = """
from diffusion_edu import GaussianMixture
data = GaussianMixture(
    torch.ones(1, dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([0.4]).double()
)
z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]


def error(program, schedule, grid):
    first, last = data.marginal(schedule, grid[0]), data.marginal(schedule, grid[-1])
    found = program(data.denoiser(schedule), first.means + first.stds * z, grid)
    return float((found - last.means - last.stds * z).abs().max())


def even(N, start, end):
    return torch.linspace(start, end, N + 1, dtype=torch.float64)


def my_test(program, schedule):
    for start, end in GRIDS:
        coarse, fine = (error(program, schedule, even(N, start, end)) for N in (64, 128))
        if torch.tensor(coarse / fine).log2() < LEAST:
            return False
    return True
"""


def changed(text: str, right: str, wrong: str) -> str:
    assert right in text, right
    return text.replace(right, wrong)


def hunting(grids: str, least: str = "1.7") -> str:
    return changed(changed(HUNT, "GRIDS", f"[{grids}]"), "LEAST", least)


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "13.1": [
        (ORDER + "math.log2(error_coarse / error_fine)", "where the steps are doubled"),
        (ORDER + "math.log(error_fine / error_coarse) / math.log(steps_fine / steps_coarse)", "the sign is turned"),
        (ORDER + "math.log(error_coarse / error_fine)", "still has to be divided"),
        (ORDER + "(error_coarse / error_fine) / (steps_fine / steps_coarse)", "no logarithm was taken"),
        (ORDER + "math.log(steps_fine / steps_coarse) / math.log(error_coarse / error_fine)", "upside down"),
        (ORDER + "2.0", "off by up to"),
    ],
    "13.2": [
        (changed(WEIGHTS, "h / (2 * h_before)", "h_before / (2 * h)"), "r is upside down"),
        (changed(WEIGHTS, "h / (2 * h_before)", "h / h_before"), "to the END of the step"),
        (changed(WEIGHTS, "h / (2 * h_before)", "0.5"), "for equal steps"),
        (changed(WEIGHTS, "1 + part, -part", "1 - part, part"), "the sign is turned"),
        (changed(WEIGHTS, "1 + part, -part", "-part, 1 + part"), "changed places"),
        (changed(WEIGHTS, "1 + part, -part", "1 + part, part"), "sum to 1"),
        (changed(WEIGHTS, "1 + part, -part", "1 + part"), "two numbers were asked for"),
        (
            "import math\n"
            + changed(WEIGHTS, "h / (2 * h_before)", "(h - 1 + math.exp(-h)) / (1 - math.exp(-h)) / h_before"),
            "exact on a line",
        ),
    ],
    "13.3": [
        (changed(SOLVER, "if error <= 1:", "if True:"), "each step was accepted"),
        (changed(SOLVER, "(-1 / 2)", "(-1)"), "error^-1"),
        (changed(SOLVER, "(-1 / 2)", "(-1 / 3)"), "error^(-1/3)"),
        (changed(SOLVER, "y + h / 2 * (k_1 + k_2)", "y + h * k_1"), "Euler's answer was carried on"),
        (changed(SOLVER, "        h = min(h, end - t)\n", ""), "beyond the end"),
        (changed(SOLVER, "0.9 * ", ""), "safety factor"),
        (
            changed(
                SOLVER, "min(5.0, max(0.2, 0.9 * max(error, 1e-12) ** (-1 / 2)))", "0.9 * max(error, 1e-12) ** -0.5"
            ),
            "the limits",
        ),
        (
            changed(SOLVER, "return y, accepted, rejected", "return y, accepted + rejected, rejected"),
            "counted among the accepted",
        ),
        (changed(SOLVER, "abs(h / 2 *", "abs(h / 4 *"), "half of what it should be"),
        (changed(SOLVER, "(-1 / 2)", "(1 / 2)"), "the end is not in sight"),
        (changed(SOLVER, "return y, accepted, rejected", "return y"), "three things were asked for"),
        (changed(SOLVER, "0.9 * ", "0.8 * "), "y at the end is about right"),
    ],
    "13.4": [
        (changed(GRID, "c(fine) ** (1 / (p + 1))", "c(fine)"), "the density is c itself"),
        (changed(GRID, "1 / (p + 1)", "1 / p"), "p + 1 is the root to take"),
        (changed(GRID, "1 / (p + 1)", "-1 / (p + 1)"), "longest where they do most harm"),
        ("def my_grid(c, p, N):\n    return torch.linspace(1, 3, N + 1)", "equal steps"),
        (
            changed(GRID, "fine[index.clamp(max=len(fine) - 1)]", "fine[index.clamp(max=len(fine) - 1)].flip(0)"),
            "the nodes fall",
        ),
        (changed(GRID, "N + 1", "N"), "steps have"),
    ],
    "13.5": [
        (hunting("(0.9, 0.1)"), "finds A, B and E, and takes C for honest"),
        (hunting("(0.9, 0.1), (0.9, 0.0)", "0.5"), "finds C, and takes A, B and E for honest"),
        (hunting("(0.9, 0.1)", "0.5"), "finds none of the four"),
        (hunting("(0.9, 0.1)", "2.5"), "accuses program D"),
        ("def my_test(program, schedule):\n    return 2.0", "answers True for honest or False"),
    ],
}

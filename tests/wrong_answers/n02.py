JUMP = "def my_jump(x_0, alpha_bar, eps):\n    a = alpha_bar.reshape(-1, 1, 1, 1)\n    return "
JUMP_ON = "def my_jump_on(x_s, alpha_bar_s, alpha_bar_t, eps):\n    r = alpha_bar_t / alpha_bar_s\n    return "
TABLE = "def my_betas(T):\n    return "
TEST = "def my_test(jump, betas):\n    one, none = torch.ones(()), torch.zeros(())\n    "

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "2.1": [
        (JUMP + "a**0.5 * x_0 + (1 - a) * eps", "this is the variance: the standard deviation was asked"),
        (JUMP + "a * x_0 + (1 - a) ** 0.5 * eps", "its amplitude, the root, was asked"),
        (JUMP + "a * x_0 + (1 - a) * eps", "both roots are missing"),
        (JUMP + "(1 - a) ** 0.5 * x_0 + a**0.5 * eps", "changed places"),
        (JUMP + "a**0.5 * x_0 + (1 - a**0.5) * eps", "their squares that do"),
        (JUMP + "alpha_bar**0.5 * x_0 + (1 - alpha_bar) ** 0.5 * eps", "met the last axis"),
        (JUMP + "a**0.5 * x_0 + (1 - a) ** 0.5 * torch.randn_like(x_0)", "draw none"),
    ],
    "2.2": [
        (JUMP_ON + "alpha_bar_t**0.5 * x_s + (1 - alpha_bar_t) ** 0.5 * eps", "the jump from x_0, taken from x_s"),
        (JUMP_ON + "r**0.5 * x_s + (1 - alpha_bar_t) ** 0.5 * eps", "counted twice"),
        (JUMP_ON + "r**0.5 * x_s + (alpha_bar_s - alpha_bar_t) ** 0.5 * eps", "shrinks on the way too"),
        (JUMP_ON + "r**0.5 * x_s + (1 - r) * eps", "this is the variance: the standard deviation was asked"),
        (JUMP_ON + "r * x_s + (1 - r) ** 0.5 * eps", "its root was asked"),
    ],
    "2.3": [
        (TABLE + "torch.linspace(1e-4, 0.02, T)", "made for 1000 steps"),
        (TABLE + "torch.linspace(1e-4, 0.02, 1000)[:: 1000 // T]", "leaves the others out"),
        (TABLE + "torch.linspace(1e-4, 0.02, T) * T / 1000", "each do more, not less"),
        (TABLE + "torch.linspace(1e-4, 0.02, T) * (1000 / T) ** 0.5", "is nearly beta, and not its root"),
        (TABLE + "torch.linspace(1e-4, 20 / T, T)", "Look at the first beta"),
        (TABLE + "torch.linspace(0.1 / T, 30 / T, T)", "too soon"),
        (TABLE + "torch.linspace(0.1 / T, 10 / T, T)", "too late: at T = 100 the log-SNR"),
        (TABLE + "torch.linspace(1e-4, 0.02, 1000)", "one beta a step"),
        (TABLE + "torch.linspace(0.1, 20, T)", "do not lie between 0 and 1"),
    ],
    "2.4": [
        (TEST + "return True", "finds none of the four"),
        (TEST + "return False", "compare with is right"),
        (
            TEST + "return all(abs(jump(betas, one, k, none) ** 2 + jump(betas, none, k, one) ** 2 - 1) < 1e-5 "
            "for k in (1, 9, 500))",
            "it finds C, and takes A, B and E for honest",
        ),
        (TEST + "return abs(jump(betas, one, 1, none) ** 2 - (1 - betas[0])) < 1e-6", "takes B and C for honest"),
        (TEST + "return jump(betas, one, 1000, none) < 0.01", "finds B, and takes A, C and E for honest"),
        (
            TEST + "return abs(jump(betas, one, 2, none) ** 2 - (1 - betas[1])) < 1e-6",
            "it accuses A, C, D and E, and D is honest",
        ),
        (TEST + "return jump(betas, one, 9, none)", "returned a Tensor"),
    ],
}

SINUSOIDS = """
def my_sinusoids(k, n):
    angles = k[:, None] * 10_000.0 ** (-torch.arange(n) / n)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
"""


def sinusoids(right: str, wrong: str) -> str:
    assert right in SINUSOIDS
    return SINUSOIDS.replace(right, wrong)


NORM = """
def my_group_norm(x, groups):
    B, C, H, W = x.shape
    grouped = x.reshape(B, groups, C // groups, H, W)
    mean = grouped.mean((2, 3, 4), keepdim=True)
    variance = grouped.var((2, 3, 4), keepdim=True, correction=0)
    return ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
"""


def norm(*changes: tuple[str, str]) -> str:
    code = NORM
    for right, wrong in changes:
        assert right in code
        code = code.replace(right, wrong)
    return code


def testing(*checks: str, levels: str = "[0.1, 0.4, 0.6, 0.9]") -> str:
    lines = "".join(f"    honest = honest and bool({check})\n" for check in checks)
    return f"""
def my_test(network):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 8, 8, generator=generator)
    level = torch.tensor({levels})
    before, honest = x.clone(), True
    together = network(x, level)
    alone = torch.cat([network(x[i : i + 1], level[i : i + 1]) for i in range(4)])
{lines}    return honest
"""


COMPANY = "torch.allclose(together, alone, atol=1e-4)"
LEVEL = "(network(x, 1 - level) - together).abs().max() > 1e-3"
UNTOUCHED = "torch.equal(x, before)"


def paper(
    raw: str = "128 / 2 * (1 / 20 - 1 / 1998)",
    size: str = "((999**2 + 1) / 3) ** 0.5",
    divided: str = "128 / 2 * (1 / 2 - 5 / 999)",
) -> str:
    return f"raw_bends, raw_size, divided_bends = {raw}, {size}, {divided}"


WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "6.1": [
        (sinusoids("torch.arange(n) / n", "torch.arange(n) / (n - 1)"), "divided by n - 1"),
        (sinusoids("torch.arange(n) / n", "torch.arange(n) / (2 * n)"), "divided by 2n"),
        (sinusoids("** (-torch", "** (torch"), "the minus is missing"),
        (sinusoids("= k[:, None]", "= 2 * torch.pi * k[:, None]"), "2 pi too many"),
        (sinusoids("[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]"), "the cosines stand before"),
        (
            sinusoids(
                "torch.cat([angles.sin(), angles.cos()], dim=1)",
                "torch.stack([angles.sin(), angles.cos()], 2).flatten(1)",
            ),
            "take turns",
        ),
        (sinusoids("torch.cat([angles.sin(), angles.cos()], dim=1)", "angles.sin()"), "the sines alone"),
    ],
    "6.2": [
        (
            norm(("(2, 3, 4)", "(0, 2, 3)"), ("x.reshape(B, groups, C // groups, H, W)", "x")),
            "this is batch norm",
        ),
        (norm(("(2, 3, 4)", "(0, 2, 3, 4)")), "over the batch too"),
        (
            norm(("(2, 3, 4)", "(2, 3)"), ("x.reshape(B, groups, C // groups, H, W)", "x")),
            "this is instance norm",
        ),
        (
            norm(("(2, 3, 4)", "(1, 2, 3)"), ("x.reshape(B, groups, C // groups, H, W)", "x")),
            "this is layer norm",
        ),
        (norm(("groups, C // groups,", "C // groups, groups,")), "as many groups as"),
        (norm((".sqrt()", "")), "divides by the variance"),
        (norm((", correction=0", "")), "divided by n - 1"),
        (norm((" + 1e-5", "")), "the 1e-5 under the root is missing"),
        (norm(("(grouped - mean)", "grouped")), "the mean is not subtracted"),
    ],
    "6.3": [
        ("width = 17", "the step of two is forgotten"),
        ("width = 23", "is itself 3 wide"),
        ("width = 27", "counts 2, not 4"),
        ("width = 12", "to one side"),
        ("width = 24", "the pixel itself is missing"),
        ("width = 15", "holds two convolutions"),
    ],
    "6.4": [
        ("factor = 784", "these are the places"),
        ("factor = 9", "at one place"),
        ("factor = 256", "the number of planes"),
        ("factor = 9 * 784 * 48", "are there in both"),
        ("factor = 9 * 784 * 257 / 256", "the picture's own channel"),
    ],
    "6.5": [
        (testing(COMPANY), "finds A and C, and takes B and E for honest"),
        (testing(LEVEL), "finds E, and takes A, B and C for honest"),
        (testing(COMPANY, LEVEL), "finds A, C and E, and takes B for honest"),
        (testing(COMPANY, LEVEL, UNTOUCHED, levels="[0.3, 0.3, 0.3, 0.3]"), "takes A for honest"),
        (testing("(network(x, 1 - level) > together).all()"), "accuses network D"),
        (
            "def my_test(network):\n    x = torch.ones(2, 1, 8, 8)\n    return network(x, x[:, 0, 0, 0])",
            "answers True for",
        ),
    ],
    "6.6": [
        (paper(raw="128 * (1 / 20 - 1 / 1998)"), "raw_bends: half of the bends"),
        (paper(raw="128 / 40"), "raw_bends: these are all the bends beyond 10"),
        (paper(raw="(1 / 20 - 1 / 1998) / 2"), "raw_bends: this is the share of one unit"),
        (paper(raw="128 * (1 / 10 - 1 / 999)"), "raw_bends: 1/tau is twice"),
        (paper(size="(999**2 + 1) / 3"), "raw_size: this is the variance"),
        (paper(size="999.0"), "raw_size: this is the largest"),
        (paper(size="(999**2 / 12 + 1 / 12) ** 0.5"), "raw_size: a number that is uniform"),
        (paper(divided="128 / 2 * (999 / 20 - 1 / 2)"), "divided_bends: (6.2) is for tau of 1 and more"),
        (paper(divided="32.0"), "divided_bends: this counts from k = 0"),
        (paper(divided="128 / 2 * (1 / 20 - 1 / 1998)"), "divided_bends: these are the bends of the raw step"),
        (paper(divided="128 / 2 * (1 - 5 / 999)"), "divided_bends: these are the bends beyond k = 10"),
    ],
}

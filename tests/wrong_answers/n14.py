FRECHET = """
def my_distance(mean_a, A, mean_b, B):
    values, vectors = torch.linalg.eigh(A)
    root_A = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root_A @ B @ root_A).clamp(min=0).sqrt().sum()
    return (mean_a - mean_b).square().sum() + A.trace() + B.trace() - 2 * cross
"""
MMD = """
def my_mmd_squared(x, y, k):
    def mean_of_pairs(K):
        return (K.sum() - K.trace()) / (len(K) * (len(K) - 1))

    value = mean_of_pairs(k(x, x)) + mean_of_pairs(k(y, y)) - 2 * k(x, y).mean()
    return value
"""
BITS = """
import math
def my_bits(log_p, dims):
    return -log_p / (dims * math.log(2)) + math.log2(127.5)
"""
DETECTOR = """
from diffusion_edu.metrics import memorisation
def my_detector(samples, train, held_out):
    return memorisation(samples, train, held_out).z < 3
"""
HUNT = """
def my_test(program, features):
    generator = torch.Generator().manual_seed(0)
    samples, train, test = 0.7 * torch.randn(3, 200, 1, 4, 4, generator=generator, dtype=torch.float64)
    samples[100:] += 0.5
    train, test = (train - 0.5).clamp(-1, 1), test.clamp(-1, 1)
    saved = ((samples + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    wanted = frechet_distance(features(saved), features(test))
    return bool(abs(program(samples, train, test, features) - wanted) < 1e-6)
"""


def changed(text: str, right: str, wrong: str) -> str:
    assert right in text, right
    return text.replace(right, wrong)


def detecting(line: str) -> str:
    return f"def my_detector(samples, train, held_out):\n    {line}"


WRONG_ANSWERS = {
    "14.1": [
        (
            changed(
                FRECHET,
                "torch.linalg.eigvalsh(root_A @ B @ root_A).clamp(min=0).sqrt().sum()",
                "(root_A @ B @ root_A).clamp(min=0).sqrt().trace()",
            ),
            "number by number",
        ),
        (
            changed(
                FRECHET,
                "torch.linalg.eigvalsh(root_A @ B @ root_A).clamp(min=0).sqrt().sum()",
                "(A @ B).sqrt().trace()",
            ),
            "the root of A @ B",
        ),
        (
            changed(
                FRECHET,
                "    cross = torch.linalg.eigvalsh(root_A @ B @ root_A).clamp(min=0).sqrt().sum()",
                "    v, w = torch.linalg.eigh(B)\n    cross = (root_A @ (w * v.sqrt() @ w.T)).trace()",
            ),
            "only where A and B have the same axes",
        ),
        (changed(FRECHET, "2 * cross", "cross"), "the 2 before the last term"),
        (changed(FRECHET, ".clamp(min=0).sqrt().sum()", ".sum()"), "the last root is missing"),
        (changed(FRECHET, "(mean_a - mean_b).square().sum() + A", "A"), "the means are missing"),
        (changed(FRECHET, "(mean_a - mean_b).square().sum()", "(mean_a - mean_b).norm()"), "means is not squared"),
        (
            changed(FRECHET, "return (mean", "return torch.sqrt((mean").rstrip() + ")",
            "by custom it is reported squared",
        ),
        (changed(FRECHET, "A.trace()", "A.sum()"), "off by up to"),
    ],
    "14.2": [
        ("distance_without_bias = (500 * 5.25 - 2000 * 9.0) / (500 - 2000)", "changed places"),
        ("distance_without_bias = 5.25", "the smaller of the two"),
        ("distance_without_bias = 7.125", "the mean of the two"),
        ("distance_without_bias = 9.0 - 4.0", "the bias, and not what is left"),
        (
            "distance_without_bias = (500**0.5 * 9.0 - 2000**0.5 * 5.25) / (500**0.5 - 2000**0.5)",
            "not with 1 / sqrt(n)",
        ),
        ("distance_without_bias = 500 * 9.0 - 2000 * 5.25", "times the answer: divide by n_1 - n_2"),
        ("distance_without_bias = 1.0", "off by up to"),
    ],
    "14.3": [
        (
            changed(MMD, "(K.sum() - K.trace()) / (len(K) * (len(K) - 1))", "K.mean()"),
            "an example is paired with itself",
        ),
        (changed(MMD, "(len(K) * (len(K) - 1))", "len(K) ** 2"), "there are n (n - 1) pairs"),
        (changed(MMD, "- 2 * k(x, y)", "- k(x, y)"), "the 2 before the last mean"),
        (changed(MMD, "return value", "return -value"), "the sign is turned"),
        (changed(MMD, "return value", "return value.clamp(min=0)"), "an estimate without bias may be negative"),
        (changed(MMD, "len(K) * (len(K) - 1)", "2 * len(K) * (len(K) - 1)"), "counted once in the sum"),
    ],
    "14.4": [
        (changed(BITS, " + math.log2(127.5)", ""), "the unit of the density is missing"),
        (changed(BITS, "math.log2(127.5)", "8"), "8 bits were added"),
        (changed(BITS, "127.5", "255"), "that of data on [0, 1]"),
        (changed(BITS, "+ math.log2", "- math.log2"), "was taken away"),
        (changed(BITS, "(dims * math.log(2)) + math.log2(127.5)", "dims + math.log(127.5)"), "these are nats"),
        (changed(BITS, "-log_p", "log_p"), "the sign is turned"),
        (changed(BITS, "(dims * math.log(2))", "math.log(2)"), "not divided by the number of dimensions"),
        (changed(BITS, "/ (dims * math.log(2))", "/ dims * math.log(2)"), "nats have to be divided by it"),
    ],
    "14.5": [
        (
            detecting(
                "return bool((torch.cdist(samples, train).min(1).values < torch.cdist(samples, held_out).min(1).values)"
                ".double().mean() < 0.5)"
            ),
            "it accuses all three",
        ),
        (detecting("return bool(torch.cdist(samples, train).min(1).values.median() > 0.1)"), "it accuses C too"),
        (detecting("return bool(torch.cdist(samples, train).min() > 0)"), "takes the copier for honest"),
        (detecting("return torch.cdist(samples, train).min(1).values > 0.1"), "answers True for honest or False"),
    ],
    "14.6": [
        (changed(HUNT, "(train - 0.5).clamp(-1, 1), test", "test.clamp(-1, 1), test"), "takes A for honest"),
        (changed(HUNT, "3, 200, 1", "3, 100, 1"), "takes D for honest"),
        (
            changed(HUNT, "samples[100:] += 0.5", "samples[100:] += 0.5\n    samples = samples.clamp(-1, 1)"),
            "takes E for honest",
        ),
        (changed(HUNT, "features(saved)", "features(samples)"), "it accuses protocol C"),
        (changed(HUNT, "< 1e-6", "> -1"), "it finds none of the four"),
        ("def my_test(program, features):\n    return 1.0", "answers True for honest or False"),
    ],
}

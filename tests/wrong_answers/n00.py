WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "0.1": [
        ("half_time = 0.5**0.5", "the amplitude"),
        ("half_time = torch.pi / 4", "angle divided by pi/2"),
        ("half_time = 45", "degrees"),
        ("half_time = 0.3", "off by up to 0.2"),
    ],
    "0.2": [
        ("def my_q_sample(x_0, eps, alpha, sigma):\n    return alpha * x_0 + sigma**2 * eps", "standard deviation"),
        ("def my_q_sample(x_0, eps, alpha, sigma):\n    return x_0 + sigma * eps", "does not shrink"),
        ("def my_q_sample(x_0, eps, alpha, sigma):\n    return sigma * x_0 + alpha * eps", "changed places"),
        ("def my_q_sample(x_0, eps, alpha, sigma):\n    return alpha * x_0 - sigma * eps", "it is added"),
        ("def my_q_sample(x_0, eps, alpha, sigma):\n    return (x_0 + eps).mean()", "shape"),
    ],
    "0.3": [
        ("my_labels = [7] * 16", "a tensor was asked for"),
        ("my_labels = torch.full((16,), 7.0)", "whole number"),
        ("my_labels = torch.full((10,), 7)", "16 labels"),
        ("my_labels = torch.nn.functional.one_hot(torch.full((16,), 7), 10)", "one-hot"),
        ("my_labels = torch.arange(16) % 10", "other digits than seven"),
    ],
}

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "4.1": [
        (
            "def my_bits(nats, dims):\n    return nats / (dims * 0.6931471805599453)",
            "was forgotten",
        ),
        ("def my_bits(nats, dims):\n    return nats / dims", "in nats for each number"),
        (
            "def my_bits(nats, dims):\n    return nats / (dims * 0.6931471805599453) - 6.994353436858858",
            "was subtracted",
        ),
        ("def my_bits(nats, dims):\n    return nats / (dims * 0.6931471805599453) + 8", "the offset here is 8 bits"),
        ("def my_bits(nats, dims):\n    return nats / (dims * 0.6931471805599453) + 7", "the offset here is 7 bits"),
        (
            "def my_bits(nats, dims):\n    return nats / (dims * 0.6931471805599453) + 4.848116363982307",
            "in nats here, log(127.5)",
        ),
        (
            "def my_bits(nats, dims):\n    return nats / (dims * 0.6931471805599453) + 6.994353436858858 / dims",
            "divided by the number of dimensions",
        ),
        (
            "def my_bits(nats, dims):\n    return nats / 0.6931471805599453 + 6.994353436858858 * dims",
            "bits of a whole picture",
        ),
    ],
    "4.2": [
        (
            "def my_term(error, alpha_bar_before, alpha_bar_now, variance):\n"
            "    fall = alpha_bar_before / (1 - alpha_bar_before) - alpha_bar_now / (1 - alpha_bar_now)\n"
            "    return fall / 2 * error**2",
            "posterior's variance; this model has another one",
        ),
        (
            "def my_term(error, alpha_bar_before, alpha_bar_now, variance):\n"
            "    beta = 1 - alpha_bar_now / alpha_bar_before\n"
            "    w = beta * (1 - alpha_bar_before) / (1 - alpha_bar_now) / variance\n"
            "    fall = alpha_bar_before / (1 - alpha_bar_before) - alpha_bar_now / (1 - alpha_bar_now)\n"
            "    return w * fall / 2 * error**2",
            "(w - 1 - log w) / 2, is missing",
        ),
        (
            "def my_term(error, alpha_bar_before, alpha_bar_now, variance):\n"
            "    beta = 1 - alpha_bar_now / alpha_bar_before\n"
            "    w = beta * (1 - alpha_bar_before) / (1 - alpha_bar_now) / variance\n"
            "    fall = alpha_bar_before / (1 - alpha_bar_before) - alpha_bar_now / (1 - alpha_bar_now)\n"
            "    return (w - 1 - torch.log(w)) / 2 + fall / 2 * error**2",
            "has no factor w",
        ),
        (
            "def my_term(error, alpha_bar_before, alpha_bar_now, variance):\n"
            "    beta = 1 - alpha_bar_now / alpha_bar_before\n"
            "    w = variance / (beta * (1 - alpha_bar_before) / (1 - alpha_bar_now))\n"
            "    fall = alpha_bar_before / (1 - alpha_bar_before) - alpha_bar_now / (1 - alpha_bar_now)\n"
            "    return (w - 1 - torch.log(w)) / 2 + w * fall / 2 * error**2",
            "upside down",
        ),
        (
            "def my_term(error, alpha_bar_before, alpha_bar_now, variance):\n"
            "    beta = 1 - alpha_bar_now / alpha_bar_before\n"
            "    w = beta * (1 - alpha_bar_before) / (1 - alpha_bar_now) / variance\n"
            "    fall = alpha_bar_before / (1 - alpha_bar_before) - alpha_bar_now / (1 - alpha_bar_now)\n"
            "    return (w - 1 - torch.log(w)) / 2 + w * fall * error**2",
            "factor 1/2",
        ),
        (
            "def my_term(error, alpha_bar_before, alpha_bar_now, variance):\n"
            "    beta = 1 - alpha_bar_now / alpha_bar_before\n"
            "    w = beta * (1 - alpha_bar_before) / (1 - alpha_bar_now) / variance\n"
            "    fall = alpha_bar_now / (1 - alpha_bar_now) - alpha_bar_before / (1 - alpha_bar_before)\n"
            "    return (w - 1 - torch.log(w)) / 2 + w * fall / 2 * error**2",
            "the SNR falls with k",
        ),
    ],
    "4.3": [
        (
            'missing = {"A": "widths", "B": "L_0", "C": "L_T", "D": "L_1", "E": "none"}',
            "L_T is not what C left out",
        ),
        (
            'missing = {"A": "L_1", "B": "L_0", "C": "none", "D": "widths", "E": "L_T"}',
            "L_1 is not what A left out",
        ),
        (
            'missing = {"A": "widths", "B": "none", "C": "L_0", "D": "L_1", "E": "L_T"}',
            "only one of them is",
        ),
        (
            'missing = {"A": "widths", "B": "L_0", "C": "none", "D": "L_1", "E": "L_1"}',
            "L_1 is not what E left out",
        ),
        (
            'missing = {"A": "widths", "B": "L_0", "C": "none", "D": "L_2", "E": "L_T"}',
            "the names to choose from",
        ),
        ('missing = ["widths", "L_0", "none", "L_1", "L_T"]', "a dictionary"),
    ],
    "4.4": [
        (
            "def my_audit(program):\n    return sum(program(4.0, 100)) - 2.1120857137646180",
            "accuses program D, which is honest",
        ),
        (
            "def my_audit(program):\n    return min(sum(program(1.0, 100)) - 1.4189385332046727, 0.0)",
            "finds A and C, and takes B and E for honest",
        ),
        (
            "def my_audit(program):\n    return program(1.0, 1000)[2] + 3.1862316527",
            "finds E, and takes A, B and C for honest",
        ),
        (
            "def my_audit(program):\n    return program(1.0, 100)[0] - program(1.0, 200)[0]",
            "finds none of the four",
        ),
    ],
}

EMA = """
def my_average(thetas, decay):
    average = thetas[0].clone()
    for n in range(1, len(thetas)):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * thetas[n]
    return average
"""
GRADIENT = """
def my_gradient(loss, theta, x, most):
    gradient = torch.zeros_like(theta)
    for part in x.split(most):
        share = len(part) / len(x)
        gradient += share * torch.autograd.grad(loss(theta, part), theta)[0]
    return gradient
"""
RESUME = """
import copy

def my_save(network, optimiser, average, step):
    return copy.deepcopy({"network": network.state_dict(), "optimiser": optimiser.state_dict(),
                          "average": average.state_dict(), "step": step})

def my_load(checkpoint, network, optimiser, average):
    network.load_state_dict(checkpoint["network"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    average.load_state_dict(checkpoint["average"])
    return checkpoint["step"]
"""
SAMPLES = """
def my_samples(model, noise):
    before = model.training
    model.eval()
    with torch.no_grad():
        x = exercise.walk(model, noise)
    model.train(before)
    return x
"""
HUNT = """
def my_test(program):
    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.seen, self.path = torch.nn.Parameter(torch.ones(())), [], []

        def forward(self, x_t, t):
            self.seen.append(x_t.mean())
            self.path.append(self.w.detach().clone())
            return self.w * torch.ones_like(x_t)

    spy = Spy()
    average = program(spy, torch.PICTURES(16, 1, 28, 28, dtype=torch.uint8), 60)
    try:
        program(Spy(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 2, "meta")
        moves = True
    except Exception:
        moves = False
    learnt = max(abs(float(w)) for w in spy.path[40:]) < 0.1
    forgets = abs(float(average.w.detach())) < 0.1
    seen = sum(float(m) for m in spy.seen) / len(spy.seen)
    return ANSWER
"""


def changed(code: str, right: str, wrong: str) -> str:
    assert right in code
    return code.replace(right, wrong)


def hunt(answer: str, pictures: str = "zeros") -> str:
    return HUNT.replace("ANSWER", answer).replace("PICTURES", pictures)


DROP_OPTIMISER = '    optimiser.load_state_dict(checkpoint["optimiser"])\n'
DROP_AVERAGE = '    average.load_state_dict(checkpoint["average"])\n'

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "7.1": [
        ("share = 1 - 0.9999**5000", "all that was learnt"),
        ("share = 5000 * 1e-4", "as if each step took it from the whole"),
        ("share = 0.9999**10000", "one window"),
        ("share = 0.999**5000", "ten times as fast"),
        ("share = 1e-4", "the newest weights"),
    ],
    "7.2": [
        (changed(EMA, "min(decay, (1 + n) / (10 + n))", "decay"), "no warm-up in it"),
        (changed(EMA, "min(", "max("), "a maximum stands"),
        (changed(EMA, "d * average + (1 - d) * thetas[n]", "(1 - d) * average + d * thetas[n]"), "changed places"),
        (
            changed(changed(EMA, "thetas[0].clone()", "torch.zeros_like(thetas[0])"), "range(1,", "range("),
            "the first weights are not copied",
        ),
        (
            "def my_average(thetas, decay):\n    average = 0\n    for theta in thetas:\n        average = decay * "
            "average + (1 - decay) * theta\n    return average",
            "starts from zero",
        ),
        (changed(EMA, "(1 + n) / (10 + n)", "n / (9 + n)"), "lags by one"),
        (changed(EMA, "(1 + n) / (10 + n)", "(2 + n) / (11 + n)"), "runs ahead"),
        (changed(EMA, "min(decay, (1 + n) / (10 + n))", "(1 + n) / (10 + n)"), "without its cap"),
        ("def my_average(thetas, decay):\n    return thetas.mean(0)", "the plain mean"),
    ],
    "7.3": [
        (changed(GRADIENT, "share * torch", "torch"), "three times too long"),
        (changed(GRADIENT, "share * torch", "1 / 3 * torch"), "this is the mean of the parts"),
        (changed(GRADIENT, "share * torch", "share / len(x) * torch"), "the mean is taken twice"),
        (changed(GRADIENT, "gradient += share *", "gradient ="), "last part alone"),
        (changed(GRADIENT, "share * torch", "1 / len(x) * torch"), "multiply it by its own number"),
        (
            "def my_gradient(loss, theta, x, most):\n    return torch.autograd.grad(loss(theta, x), theta)[0]",
            "called with 10 examples",
        ),
    ],
    "7.4": [
        (changed(RESUME, DROP_OPTIMISER, ""), "the optimiser was not restored"),
        (changed(RESUME, DROP_AVERAGE, ""), "the average of the weights was not restored"),
        (changed(changed(RESUME, DROP_AVERAGE, ""), DROP_OPTIMISER, ""), "the optimiser and the average"),
        (changed(RESUME, "copy.deepcopy(", "dict("), "the checkpoint changed after"),
        (changed(RESUME, 'return checkpoint["step"]', "return 0"), "a second time"),
        (changed(RESUME, 'return checkpoint["step"]', 'return checkpoint["step"] + 1'), "one step too late"),
        (changed(RESUME, 'return checkpoint["step"]', 'return checkpoint["step"] - 1'), "one step too early"),
        ("def my_save(*given):\n    return 1\n\n\ndef my_load(*given):\n    return 0", "began anew"),
        (changed(RESUME, 'return checkpoint["step"]', "return checkpoint"), "must return the step"),
    ],
    "7.5": [
        (hunt("moves"), "finds D, and takes A, C and E for honest"),
        (hunt("learnt and forgets and moves"), "finds A, D and E, and takes C for honest"),
        (hunt("learnt and moves and seen < -0.3"), "finds A, C and D, and takes E for honest"),
        (hunt("forgets and seen < -0.3 and learnt"), "finds A, C and E, and takes D for honest"),
        (hunt("seen == -1.0"), "accuses program B"),
        ("def my_test(program):\n    return program", "answers True for honest or False"),
    ],
    "7.6": [
        (changed(SAMPLES, "    model.eval()\n", ""), "dropout was on"),
        (changed(SAMPLES, "    model.train(before)\n", ""), "left in eval mode; it was in training mode"),
        (changed(SAMPLES, "model.train(before)", "model.train()"), "left in training mode; it was in eval mode"),
        (changed(SAMPLES, "model.train(before)", "model.dropout.train(before)"), "some of its parts in one mode"),
        (changed(SAMPLES, "torch.no_grad()", "torch.enable_grad()"), "carry the graph"),
        (
            changed(
                changed(SAMPLES, "torch.no_grad()", "torch.enable_grad()"), "noise)\n    m", "noise).detach()\n    m"
            ),
            "detached from their graph",
        ),
        (changed(SAMPLES, "    with torch.no_grad():\n    ", "    torch.set_grad_enabled(False)\n"), "off for good"),
        (changed(SAMPLES, "    with torch.no_grad():\n    ", "    model.requires_grad_(False)\n"), "learns nothing"),
        (changed(SAMPLES, "exercise.walk(model, noise)", "noise"), "the noise itself"),
    ],
}

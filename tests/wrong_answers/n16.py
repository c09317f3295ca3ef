TIMES = """
def my_times(timesteps, T):
    return torch.cat([(timesteps.double() + 1) / T, torch.zeros(1, dtype=torch.float64)])
"""
X_0 = """
def my_x_0(output, x_t, alpha_bar, prediction_type):
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if prediction_type == "epsilon":
        return (x_t - sigma * output) / alpha
    if prediction_type == "sample":
        return output
    return alpha * x_t - sigma * output
"""
BETAS = """
def my_betas(alpha, T):
    alpha_bar = alpha(torch.linspace(0, 1, T + 1, dtype=torch.float64)) ** 2
    return 1 - alpha_bar[1:] / alpha_bar[:-1]
"""
TEST = """
def my_test(adapter):
    schedule = BetaSchedule.linear()
    from diffusion_edu import GaussianMixture, moons
    denoiser = GaussianMixture(*moons()).denoiser(schedule)
    x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    for j in (10, 500, 900):
        t = schedule.time(j + 1)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        v = (alpha * x - denoiser(x, t)) / sigma
        if not torch.allclose(adapter(denoiser, x, torch.tensor(j)), v):
            return False
    return True
"""
LOAD = """
class Answering(torch.nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, x, level, condition=None):
        return self.unet(x, level, class_labels=condition).sample


def my_load(folder):
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    row = {"epsilon": EPS, "sample": X0, "v_prediction": V}[scheduler.config.prediction_type]
    schedule = BetaSchedule(scheduler.betas)
    T = schedule.num_timesteps
    return DiffusionModel(Answering(unet), schedule, row, level=lambda schedule, t: T * t - 1).eval()
"""


def with_(program: str, right: str, wrong: str) -> str:
    assert right in program
    return program.replace(right, wrong)


def at(timesteps: str, tolerance: str = "") -> str:
    """The test at other timesteps, and less closely."""
    return with_(
        with_(TEST, "(10, 500, 900)", timesteps), "x, torch.tensor(j)), v", f"x, torch.tensor(j)), v{tolerance}"
    )


ONES = """
class Ones:
    schedule = BetaSchedule.linear()

    def __call__(self, x_t, t, condition=None):
        return torch.ones_like(x_t)


def my_test(adapter):
    x, schedule = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2), Ones.schedule
    for j in (10, 500, 900):
        alpha, sigma = schedule.alpha(schedule.time(j + 1)), schedule.sigma(schedule.time(j + 1))
        if not torch.allclose(adapter(Ones(), x, torch.tensor(j)), (alpha * x - 1) / sigma):
            return False
    return True
"""

WRONG_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "16.1": [
        (with_(TIMES, "(timesteps.double() + 1) / T", "timesteps / T"), "this is timestep / T, and the index"),
        (with_(TIMES, "(timesteps.double() + 1) / T", "timesteps / (T - 1)"), "stretches the grid"),
        ("def my_times(timesteps, T):\n    return (timesteps.double() + 1) / T", "the end is missing: there the last"),
        ("def my_times(timesteps, T):\n    return timesteps / T", "missing as well"),
        (with_(TIMES, "torch.zeros(1, dtype=torch.float64)", "torch.ones(1) / T"), "the grid ends at 1 / T"),
        (with_(TIMES, "(timesteps.double() + 1) / T", "timesteps + 1"), "this is k, a number of steps"),
        (with_(TIMES, "torch.float64)])", "torch.float64)]).flip(0)"), "the grid rises"),
        (with_(TIMES, "return ", "return 1 - "), "this is 1 - t"),
        (with_(TIMES, "+ 1", "- 1"), "the sign of the offset"),
    ],
    "16.2": [
        (
            with_(X_0, "alpha_bar.sqrt(), (1 - alpha_bar).sqrt()", "alpha_bar, 1 - alpha_bar"),
            "amplitudes are its roots",
        ),
        (with_(X_0, "(x_t - sigma", "(x_t + sigma"), "and this adds it"),
        (with_(X_0, "(x_t - sigma * output) / alpha", "x_t - sigma * output"), "divided by alpha"),
        (with_(X_0, "alpha, sigma =", "sigma, alpha ="), "changed places"),
        (with_(X_0, "(x_t - sigma * output) / alpha", "alpha * x_t - sigma * output"), "what is done with v"),
        ("def my_x_0(output, x_t, alpha_bar, prediction_type):\n    return output", "returned as it came"),
        (with_(X_0, "return output", "return x_t"), "and this is x_t"),
        (
            "def my_x_0(output, x_t, alpha_bar, prediction_type):\n"
            "    return (x_t - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt()",
            "as if it were the noise",
        ),
        (
            with_(X_0, "return output", "return alpha * x_t - sigma * output"),
            "as if it were v",
        ),
        (with_(X_0, "return alpha * x_t - sigma", "return alpha * x_t + sigma"), "the sign in front of v"),
        (with_(X_0, "return alpha * x_t - sigma", "return sigma * x_t + alpha"), "this is eps_hat"),
        (
            with_(X_0, "return alpha * x_t - sigma * output", "return alpha**2 * x_t - sigma**2 * output"),
            "and v takes amplitudes",
        ),
        (with_(X_0, "return alpha * x_t - sigma", "return sigma * x_t - alpha"), "places in alpha x_t - sigma v"),
        (
            with_(X_0, "return alpha * x_t - sigma * output", "return (x_t - sigma * output) / alpha"),
            "as if it were the noise: that is right only",
        ),
        (
            with_(X_0, "return alpha * x_t - sigma * output", "return sigma * output - alpha * x_t"),
            "this is minus x_0_hat",
        ),
    ],
    "16.3": [
        (with_(BETAS, ") ** 2", ")"), "alpha is an amplitude"),
        (
            with_(BETAS, "torch.linspace(0, 1, T + 1, dtype=torch.float64)", "torch.arange(-1, T).clamp(min=0) / T"),
            "begins with a beta of 0",
        ),
        (with_(BETAS, "alpha_bar[1:] / alpha_bar[:-1]", "alpha_bar[:-1] / alpha_bar[1:]"), "upside down"),
        (with_(BETAS, "alpha_bar[1:] / alpha_bar[:-1]", "alpha_bar[1:]"), "the noise of all steps so far"),
        (with_(BETAS, "1 - alpha_bar[1:] / alpha_bar[:-1]", "alpha_bar[1:]"), "this is alpha_bar itself"),
        (with_(BETAS, "1 - alpha_bar[1:] / alpha_bar[:-1]", "alpha_bar[:-1] - alpha_bar[1:]"), "takes off alpha_bar"),
        (with_(BETAS, "1 - alpha_bar[1:] / alpha_bar[:-1]", "(1 - alpha_bar[1:] / alpha_bar[:-1]).sqrt()"), "standard"),
        (with_(BETAS, "1 - alpha_bar[1:]", "alpha_bar[1:]"), "which they call alphas"),
        (with_(BETAS, "T + 1,", "T,"), "T + 1 nodes"),
    ],
    "16.4": [
        (at("(500, 900)", ", atol=0.05"), "takes A and D for honest"),
        (at("(0,)", ", atol=0.2"), "takes B and D for honest"),
        (at("(0,)"), "finds A, B and E, and takes D for honest"),
        (at("(2,)", ", atol=0.5"), "takes A, B and D for honest"),
        (ONES, "takes E for honest"),
        (with_(TEST, "schedule.time(j + 1)", "schedule.time(j)"), "accuses adapter C"),
        (
            with_(
                with_(TEST, "if not torch.allclose(", "return torch.isclose("),
                ":\n            return False\n    return True",
                "",
            ),
            "answers True for honest or False",
        ),
    ],
    "16.5": [
        (
            with_(LOAD, "schedule, row,", "schedule, EPS,"),
            "is taken for the noise, and the config has prediction_type = v",
        ),
        (with_(LOAD, '"epsilon": EPS', '"epsilon": V'), "is taken for v, and the config has prediction_type = epsilon"),
        (with_(LOAD, '"sample": X0', '"sample": EPS'), "in folder 3 of 3, the network's output is taken for the noise"),
        (
            with_(LOAD, "BetaSchedule(scheduler.betas)", "BetaSchedule.linear(len(scheduler.betas))"),
            "the table is DDPM's default",
        ),
        (with_(LOAD, "scheduler.betas", "scheduler.alphas_cumprod"), "alphas_cumprod was taken for the betas"),
        (with_(LOAD, "T * t - 1)", "t)"), "told t in [0, 1]"),
        (with_(LOAD, ", level=lambda schedule, t: T * t - 1", ""), "told our angle"),
        (with_(LOAD, "T * t - 1)", "T * t)"), "told k, and their timestep is k - 1"),
        (with_(LOAD, "T * t - 1)", "T * t - 2)"), "told k - 2"),
        (with_(LOAD, "T * t - 1)", "1000 * t - 1)"), "in folder 2 of 3, the network is told 1000 t - 1"),
        (
            with_(
                LOAD,
                'UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)',
                'UNet2DModel.from_config(UNet2DModel.load_config(folder, subfolder="unet"))',
            ),
            "the weights are drawn anew",
        ),
        (with_(LOAD, ".eval()", ""), "in training mode"),
        (with_(LOAD, "return DiffusionModel(", "return unet, DiffusionModel("), "this is a tuple"),
        (with_(LOAD, "return DiffusionModel(", "return unet\n    return DiffusionModel("), "of the type UNet2DModel"),
        (with_(LOAD, "T * t - 1)", "T * t + 7)"), "in a way that is not among the usual mistakes"),
    ],
}

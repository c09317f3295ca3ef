"""Do the tests see the classic mistakes? Each is made once, in a copy, and the tests that should see it are run.

    python -m scripts.mutants [--list] [words]

A mutant is one line of the package's mathematics, wrong in a way that people have got it wrong; for most,
book/mistakes.md names a public issue. It is killed if a test fails. Words choose the
mutants whose module or reason contains one of them. The command prints a table and exits with 1 if one survives that
has no reason in SURVIVORS, or is killed that has one, and with 2 if a mutant no longer fits the code or the tests are
red without it. "Killed on import" is told apart: pytest could not load the tests, and none has seen the mutant at work.

It takes minutes and is no part of the gate; tests/test_mutants.py holds every mutant to its line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Mutants that no test can see, by their words (``why``), and the reason, such as that the numbers are the same.
SURVIVORS: dict[str, str] = {}
SECONDS = 240  # for one mutant; one that runs longer does not end, and that is seen too


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Args:
        module: of the package.
        old: text that occurs once in it.
        new: what stands there instead.
        tests: names of tests in tests/test_<module>.py; with ``file::name``, in tests/test_<file>.py.
        why: the mistake, in words.
    """

    module: str
    old: str
    new: str
    tests: str
    why: str

    @property
    def path(self) -> Path:
        """Where it is made, below the repository."""
        return Path("diffusion_edu") / f"{self.module}.py"

    @property
    def nodes(self) -> list[str]:
        """The tests as pytest names them."""
        names = [name if "::" in name else f"{self.module}::{name}" for name in self.tests.split()]
        return [f"tests/test_{name}" for name in (n.replace("::", ".py::test_", 1) for n in names)]


def mutants() -> list[Mutant]:
    """All of them, by module."""
    return [
        Mutant(module, old, new, tests, why)
        for module, rows in {
            "schedule": SCHEDULE,
            "process": PROCESS,
            "parameterization": PARAMETERIZATION,
            "denoiser": DENOISER,
            "sampler": SAMPLER,
            "loss": LOSS,
            "likelihood": LIKELIHOOD,
            "guidance": GUIDANCE,
            "gaussian": GAUSSIAN,
            "ode": ODE,
            "adaptive": ADAPTIVE,
            "analytic": ANALYTIC,
            "metrics": METRICS,
            "trainer": TRAINER,
            "cli/names": NAMES,
            "cli/samples": SAMPLES,
            "networks": NETWORKS,
            "unet": UNET,
            "data": DATA,
            "storage": STORAGE,
        }.items()
        for old, new, tests, why in rows
    ]


Row = tuple[str, str, str, str]  # old, new, tests, why

SCHEDULE: list[Row] = [
    (
        "torch.log1p(-betas).cumsum(0)",
        "torch.log(betas).cumsum(0)",
        "the_first_alpha_bar_is_1_minus_beta_1_and_not_beta_1",
        "alpha_bar as the product of the betas",
    ),
    (
        "/ (1 + offset) * math.pi / 2) ** 2",
        "/ (1 + offset) * math.pi / 2)",
        "cosine_table_is_nichol_and_dhariwals",
        "the cosine schedule without its square",
    ),
    (
        "(1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))\n\n    @classmethod\n    def sigmoid",
        "(1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.99))\n\n    @classmethod\n    def sigmoid",
        "cosine_table_is_nichol_and_dhariwals",
        "another cap than 0.999 on the cosine schedule's last beta",
    ),
    (
        "k = torch.arange(num_timesteps + 1, dtype=torch.float64)\n        alpha_bar = torch.cos(",
        "k = torch.arange(1, num_timesteps + 2, dtype=torch.float64)\n        alpha_bar = torch.cos(",
        "cosine_table_is_nichol_and_dhariwals",
        "the cosine schedule on a grid that starts at 1",
    ),
    (
        "num_timesteps, dtype=torch.float64))\n\n    @classmethod\n    def cosine",
        "num_timesteps, dtype=torch.float64) * 1000 / num_timesteps)\n\n    @classmethod\n    def cosine",
        "linear_table_gives_ddpms_alpha_bars_at_every_step",
        "the linear range scaled by 1000 / T in silence",
    ),
    (
        'dtype = torch.float32 if device.type == "mps" else torch.float64\n            moved',
        "dtype = fn(table).dtype\n            moved",
        "half_and_double_leave_the_table_in_float64_and_state_dict_holds_it",
        "the table cast to half precision with the network",
    ),
    (
        'self.register_buffer("log_alpha_bars", log_alpha_bars)',
        "self.log_alpha_bars = log_alpha_bars",
        "half_and_double_leave_the_table_in_float64_and_state_dict_holds_it",
        "the table a plain attribute, not a buffer",
    ),
    (
        "return k.to(self.betas.dtype) / self.num_timesteps",
        "return (k.to(self.betas.dtype) - 1) / self.num_timesteps",
        "linear_table_gives_ddpms_alpha_bars_at_every_step",
        "steps counted from 0 here and from 1 there",
    ),
    (
        "k = position.detach().floor().long().clamp(0, self.num_timesteps - 1)",
        "k = position.detach().round().long().clamp(0, self.num_timesteps - 1)",
        "between_nodes_log_alpha_bar_is_a_straight_line",
        "the nearest node instead of the one below",
    ),
    (
        "return -self.beta_min * t - (self.beta_max - self.beta_min) * t**2 / 2",
        "return -self.beta_min * t - (self.beta_max - self.beta_min) * t**2",
        "rates_drift_and_diffusion_agree_with_autodiff diffusion_of_the_table_approaches_the_vp_sdes",
        "the integral of beta(t) without its 1/2",
    ),
    (
        "return super().diffusion(t) * torch.sqrt(-torch.expm1(2 * self.log_alpha_bar(t)))",
        "return super().diffusion(t) * torch.sqrt(-torch.expm1(self.log_alpha_bar(t)))",
        "rates_drift_and_diffusion_agree_with_autodiff",
        "sub-VP's diffusion with exp(-integral) for exp(-2 integral)",
    ),
    (
        "self.sigma_min * torch.sqrt(torch.expm1(2 * self._log_ratio * t))",
        "self.sigma_min * torch.exp(self._log_ratio * t)",
        "the_ends_of_time",
        "sigma(0) = sigma_min: data that are never clean",
    ),
    (
        "        return 1 - t\n",
        "        return t.clone()\n",
        "the_ends_of_time the_signal_to_noise_ratio_falls_strictly",
        "flow matching with its time the other way round",
    ),
    (
        "return torch.sqrt(2 * t / (1 - t))",
        "return torch.sqrt(t / (1 - t))",
        "rates_drift_and_diffusion_agree_with_autodiff",
        "g^2 = d sigma^2 / dt without the drift's share",
    ),
    (
        "return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))",
        "return torch.log(self.alpha(t)) - torch.log(self.sigma(t))",
        "log_snr_is_that_of_alpha_and_sigma time_at_inverts_log_snr_in_closed_form_and_by_bisection",
        "half a log-SNR: DPM-Solver's lambda for the log of the ratio",
    ),
    (
        "return torch.sqrt(-torch.log1p(-_nodes(self.betas, k)) * self.num_timesteps)",
        "return torch.sqrt(-torch.log1p(-_nodes(self.betas, k)))",
        "diffusion_of_the_table_approaches_the_vp_sdes rates_drift_and_diffusion_agree_with_autodiff",
        "a step's beta taken for the rate per unit of time",
    ),
    (
        "coefficient = coefficient.reshape(-1, *[1] * (like.ndim - 1))",
        "coefficient = coefficient.reshape(-1, 1, 1, 1)",
        "scales_of_points_do_not_broadcast_outwards",
        "view(-1, 1, 1, 1) on points in the plane",
    ),
    (
        "clamp(max=max_beta))\n\n    @classmethod\n    def sigmoid",
        "clamp(max=0.999))\n\n    @classmethod\n    def sigmoid",
        "the_last_beta_is_the_cap",
        "a cap on beta that cannot be moved",
    ),
]

PROCESS: list[Row] = [
    (
        "return alpha_t * x_0 + sigma_t * eps",
        "return alpha_t * x_0 + sigma_t**2 * eps",
        "q_sample_uses_standard_deviations",
        "a variance where a standard deviation belongs",
    ),
    (
        "on_x_t = alpha_t * sigma_s**2 / (alpha_s * sigma_t**2)",
        "on_x_t = alpha_t * sigma_s / (alpha_s * sigma_t)",
        "the_posterior_mean_has_ddpms_two_coefficients the_posterior_is_bayes_rule",
        "the posterior's mean with standard deviations for variances",
    ),
    (
        "on_x_0 = alpha_s * _one_minus_snr_ratio",
        "on_x_0 = alpha_t * _one_minus_snr_ratio",
        "the_posterior_mean_has_ddpms_two_coefficients the_posterior_is_bayes_rule",
        "sqrt(alpha_bar_t) where sqrt(alpha_bar_{t-1}) belongs",
    ),
    (
        "return schedule.sigma(s) * torch.sqrt(_one_minus_snr_ratio(schedule, s, t))",
        "return schedule.sigma(t) * torch.sqrt(_one_minus_snr_ratio(schedule, s, t))",
        "steps_of_the_chain_have_ddpms_beta_and_beta_tilde",
        "beta for beta-tilde",
    ),
    (
        "return schedule.sigma(s) * torch.sqrt(_one_minus_snr_ratio(schedule, s, t))",
        "return schedule.sigma(s) * _one_minus_snr_ratio(schedule, s, t)",
        "steps_of_the_chain_have_ddpms_beta_and_beta_tilde",
        "the posterior's variance, its root forgotten",
    ),
    (
        "ratio = schedule.alpha(t) / schedule.alpha(s)",
        "ratio = schedule.alpha(t)",
        "a_jump_after_a_jump_is_a_jump",
        "the jump from 0 taken for the step from s",
    ),
    (
        "    return sigma_1 * noise_like(like, generator)",
        "    return noise_like(like, generator)",
        "the_prior_has_the_noise_of_t_1",
        "N(0, I) as the start, whatever sigma(1) is",
    ),
    (
        "return (v - 1 - torch.log(v)) / 2 + (gain * error / std) ** 2 / 2",
        "return (v - 1 + torch.log(v)) / 2 + (gain * error / std) ** 2 / 2",
        "likelihood::a_term_is_the_kl_of_its_two_gaussians",
        "the sign of the logarithm in a KL of Gaussians",
    ),
    (
        "    v = (true_std / std) ** 2\n",
        "    v = (std / true_std) ** 2\n",
        "likelihood::a_term_is_the_kl_of_its_two_gaussians",
        "the reverse KL for the forward one",
    ),
    (
        "torch.where(onto(difference.device, s == t), torch.zeros_like(difference), difference)",
        "difference",
        "a_step_of_no_length_has_no_width_at_both_ends_of_time",
        "a difference of two infinite log-SNRs",
    ),
]

PARAMETERIZATION: list[Row] = [
    (
        "return -schedule.sigma(t), schedule.alpha(t)",
        "return schedule.sigma(t), -schedule.alpha(t)",
        "v_is_at_right_angles_to_x_t_and_has_the_sign_of_eps",
        "v with the other sign",
    ),
    (
        "return -schedule.sigma(t), schedule.alpha(t)",
        "return schedule.alpha(t), -schedule.sigma(t)",
        "v_is_at_right_angles_to_x_t_and_has_the_sign_of_eps",
        "v = alpha x_0 - sigma eps, its factors changed over",
    ),
    (
        "return torch.zeros_like(sigma), -1 / sigma",
        "return torch.zeros_like(sigma), -torch.ones_like(sigma)",
        "the_weights_of_the_table",
        "score = -eps, without the standard deviation",
    ),
    (
        "return torch.zeros_like(sigma), -1 / sigma",
        "return torch.zeros_like(sigma), 1 / sigma",
        "the_scores_row_is_minus_eps_over_sigma",
        "score = +eps / sigma",
    ),
    (
        "return a * schedule.sigma(t) - b * schedule.alpha(t)",
        "return a * schedule.sigma(t) + b * schedule.alpha(t)",
        "the_output_gives_back_x_0_and_eps",
        "the determinant's sign",
    ),
    (
        "return (self.determinant(schedule, t) / schedule.sigma(t)) ** 2",
        "return (self.determinant(schedule, t) / schedule.alpha(t)) ** 2",
        "the_weights_of_the_table the_weight_is_the_measured_ratio_of_squared_errors",
        "the weight on x_0's error taken for that on eps's",
    ),
    (
        "return 1 / _edm_std(sigma_data, schedule, t)",
        "return 1 / _edm_std(sigma_data, schedule, t) ** 2",
        "edms_row_is_karras_table_1",
        "EDM's c_in without its root",
    ),
    (
        "return schedule.sigma(t) / (sigma_data * std), -schedule.alpha(t) * sigma_data / std",
        "return -schedule.sigma(t) / (sigma_data * std), schedule.alpha(t) * sigma_data / std",
        "edms_row_is_karras_table_1",
        "the sign of EDM's c_out",
    ),
    (
        "partial(_edm_row, sigma_data)",
        "partial(_edm_row, 0.5)",
        "edms_row_is_karras_table_1",
        "EDM's row for data of another width",
    ),
]

DENOISER: list[Row] = [
    (
        "return -eps(denoiser, x_t, t, condition) / sigma_t",
        "return eps(denoiser, x_t, t, condition) / sigma_t",
        "the_score_of_an_exact_denoiser_is_the_gradient_of_the_exact_marginal",
        "the score's sign",
    ),
    (
        "return -eps(denoiser, x_t, t, condition) / sigma_t",
        "return -eps(denoiser, x_t, t, condition) / sigma_t**2",
        "the_score_of_an_exact_denoiser_is_the_gradient_of_the_exact_marginal",
        "the score over a variance",
    ),
    (
        "return x_0_hat, expand(alpha_rate, x_t) * x_0_hat + expand(sigma_rate, x_t) * eps_hat",
        "return x_0_hat, expand(sigma_rate, x_t) * eps_hat - expand(alpha_rate, x_t) * x_0_hat",
        "the_velocity_field_carries_the_exact_marginals",
        "the velocity eps - x_0 for every schedule's",
    ),
    (
        "        v = (u + 1) / 2\n",
        "        v = u\n",
        "likelihood::learnt_variance_spans_from_beta_tilde_to_beta",
        "the learnt variance's output taken for the share itself",
    ),
    (
        "std = torch.exp(low + v * (high - low))",
        "std = torch.exp((low + v * (high - low)) / 2)",
        "likelihood::learnt_variance_spans_from_beta_tilde_to_beta",
        "exp(log std / 2): variance and standard deviation again",
    ),
    (
        "return 2 / math.pi * torch.atan2(schedule.sigma(t), schedule.alpha(t))",
        "return 2 / math.pi * torch.atan2(schedule.alpha(t), schedule.sigma(t))",
        "the_level_that_a_network_is_told_is_in_the_unit_interval_and_rises",
        "a level that falls as the noise rises",
    ),
    (
        "c_in = expand(self.parameterization.input_scale(self.schedule, t), x_t)",
        "c_in = 1.0",
        "the_network_is_asked_with_one_level_per_example_and_a_scaled_input",
        "EDM's network without its c_in",
    ),
    (
        "limit = torch.quantile(wide.abs().flatten(1), quantile, dim=1).clamp(min=1)",
        "limit = torch.quantile(wide.abs().flatten(1), quantile, dim=1)",
        "sampler::dynamic_threshold_scales_only_what_is_too_large",
        "dynamic thresholding that blows small pictures up",
    ),
    (
        "return x_0_hat.clamp(-limit, limit) / limit",
        "return x_0_hat.clamp(-limit, limit)",
        "sampler::dynamic_threshold_scales_only_what_is_too_large",
        "thresholding without scaling back",
    ),
    (
        "        return self._treated(x_0_hat), std\n",
        "        return x_0_hat, std\n",
        "likelihood::a_treated_learnt_variance_is_treated_asked_with_the_label_and_0_at_the_end",
        "a clip that a learnt width passes by",
    ),
    (
        "denoise_with_std(self.denoiser, learnt_std, x_t, s, t, condition)",
        "denoise_with_std(self.denoiser, learnt_std, x_t, s, t)",
        "likelihood::a_treated_learnt_variance_is_treated_asked_with_the_label_and_0_at_the_end",
        "a label lost on the way to a learnt width",
    ),
    (
        "torch.where(low.isneginf(), 0, std)",
        "std",
        "likelihood::a_treated_learnt_variance_is_treated_asked_with_the_label_and_0_at_the_end",
        "a learnt width of the last step that is no number",
    ),
]

SAMPLER: list[Row] = [
    (
        "        if s > 0:\n            x_s = x_s + width * noise_like(x_t, generator)",
        "        if s >= 0:\n            x_s = x_s + width * noise_like(x_t, generator)",
        "the_step_into_0_adds_no_noise",
        "noise at the last step",
    ),
    (
        "x_s = x_s + width * noise_like(x_t, generator)",
        "x_s = x_s + width**2 * noise_like(x_t, generator)",
        "ddim_with_eta_1_is_ancestral ancestral_sampling_has_the_moments_of_its_own_recursion",
        "a variance times the noise",
    ),
    (
        "std = eta * posterior_std(schedule, s, t)",
        "std = eta**0.5 * posterior_std(schedule, s, t)",
        "eta_is_a_share_of_the_standard_deviation",
        "eta as a share of the variance",
    ),
    (
        "kept = torch.sqrt((schedule.sigma(s) ** 2 - std**2).clamp(min=0))",
        "kept = schedule.sigma(s)",
        "ddim_with_eta_1_is_ancestral a_step_with_the_true_x_0_keeps_the_marginal",
        "new noise without taking the old away",
    ),
    (
        "        eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t\n        x_s = alpha_s",
        "        eps_hat = (x_t - x_0_hat) / sigma_t\n        x_s = alpha_s",
        "one_ddim_step_from_t_to_s_goes_back_and_forth_on_a_point ddim_with_eta_1_is_ancestral",
        "eps from x_0 without its amplitude",
    ),
    (
        "x_s = alpha_s * x_0_hat + expand(kept, x_t) * eps_hat",
        "x_s = alpha_t * x_0_hat + expand(kept, x_t) * eps_hat",
        "one_ddim_step_from_t_to_s_goes_back_and_forth_on_a_point ddim_with_eta_1_is_ancestral",
        "the level where the step starts in place of the one where it ends",
    ),
    (
        "x_s = x_t + dt * (slope + slope_at_s) / 2",
        "x_s = x_t + dt * slope_at_s",
        "the_measured_order_is_the_stated_one",
        "Heun's step by the second slope alone",
    ),
    (
        "_, slope_at_s = x_0_hat_and_velocity(denoiser, x_s, s, condition)",
        "_, slope_at_s = x_0_hat_and_velocity(denoiser, x_s, state.t, condition)",
        "the_measured_order_is_the_stated_one",
        "Heun's second evaluation at the first noise level",
    ),
    (
        "        if s > 0:\n            _, slope_at_s",
        "        if s >= 0:\n            _, slope_at_s",
        "heun_asks_twice_a_step_but_once_at_the_end_and_never_at_0",
        "Heun's correction at sigma = 0",
    ),
    (
        "pull = h * g**2 / schedule.sigma(t) ** 2",
        "pull = h * g**2 / schedule.sigma(t) ** 2 / 2",
        "euler_maruyama_has_the_moments_of_its_own_recursion",
        "half of g^2 score: the ODE's drift with the SDE's noise",
    ),
    (
        "expand(g * torch.sqrt(h), x_t) * noise_like",
        "expand(g * h, x_t) * noise_like",
        "euler_maruyama_has_the_moments_of_its_own_recursion",
        "dt for sqrt(dt) in front of dw",
    ),
    (
        "h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2\n        D",
        "h = schedule.log_snr(s) - schedule.log_snr(t)\n        D",
        "the_first_step_of_dpm_solver_is_ddims",
        "log-SNR for lambda, twice as large",
    ),
    (
        "expand(h / (2 * h_before), x_t)",
        "expand(h_before / (2 * h), x_t)",
        "dpm_solvers_second_step_is_the_papers_on_uneven_steps_and_its_last_ends_at_0",
        "DPM-Solver's r the other way up",
    ),
    (
        "        if s == 0:\n            return State(s, x_0_hat, x_0_hat, state)\n        h =",
        "        s = s.clamp(min=1e-3)\n        h =",
        "dpm_solvers_second_step_is_the_papers_on_uneven_steps_and_its_last_ends_at_0",
        "a last sigma that is not 0",
    ),
    (
        "grid = torch.arange(steps, -1, -1, dtype=torch.float64) / steps",
        "grid = torch.linspace(1, 1 / steps, steps + 1, dtype=torch.float64)",
        "times_fall_from_1_to_exactly_0",
        "a walk that stops one step before the data",
    ),
    (
        "k = torch.arange(steps, 0, -1, dtype=torch.float64) * (num_timesteps / steps)",
        "k = torch.arange(steps, 0, -1, dtype=torch.float64) * (num_timesteps // steps)",
        "trailing_and_leading_nodes_are_those_of_the_papers_table",
        "a whole stride where T / n is not whole",
    ),
    (
        "dtype=torch.float64) * stride + 1 + offset",
        "dtype=torch.float64) * stride + offset",
        "trailing_and_leading_nodes_are_those_of_the_papers_table",
        "indices from 0 taken for nodes from 1",
    ),
    (
        "ramp * (sigma_min ** (1 / rho) - largest ** (1 / rho))) ** rho",
        "ramp * (sigma_min ** (1 / rho) - largest ** (1 / rho)))",
        "karras_grid_on_edms_schedule_is_the_papers",
        "EDM's grid without its power",
    ),
    (
        "x_t = torch.where((alpha_t > sigma_t) | (sigma_s == 0), by_eps, by_x_0)",
        "x_t = by_eps",
        "inversion_with_iterations_comes_back_exactly_and_without_errs_as_one_over_steps",
        "inversion by eps where it does not converge",
    ),
    (
        "by_eps = alpha_t * (x_s - sigma_s * eps_hat) / alpha_s + sigma_t * eps_hat",
        "by_eps = alpha_t * (x_s - sigma_t * eps_hat) / alpha_s + sigma_t * eps_hat",
        "inversion_finds_the_noise_of_a_gaussian",
        "inversion with the wrong level before",
    ),
    (
        "x = x + size**2 * pull + math.sqrt(2) * size",
        "x = x + size**2 * pull + size",
        "langevin_moves_have_the_variance_of_their_own_recursion",
        "Langevin's noise without sqrt(2)",
    ),
    (
        "range(times - 1 if s > 0 else 0)",
        "range(times if s > 0 else 0)",
        "resampling_takes_each_step_as_often_as_it_says_and_the_last_once",
        "resampling once too often",
    ),
]

LOSS: list[Row] = [
    (
        "snr(schedule, t).clamp(max=gamma)",
        "snr(schedule, t).clamp(min=gamma)",
        "simple_is_the_weight_of_eps_and_min_snr_caps_it_from_above",
        "min-SNR coded as a maximum",
    ),
    (
        "return expand(wanted / own, loss) * loss",
        "return expand(wanted, loss) * loss",
        "a_named_weight_is_on_the_error_in_x_0_whatever_the_network_predicts",
        "x_0's weight on v's error: SNR + 1 forgotten",
    ),
    (
        "- alpha_rate * sigma) / sigma**3",
        "- alpha_rate * sigma) * 2 / sigma**3",
        "the_elbos_weight_is_half_the_slope_of_the_snr",
        "the bound's weight without its 1/2",
    ),
    (
        "loss = ((output - target) ** 2).flatten(1).mean(1)",
        "loss = ((output - target) ** 2).flatten(1).sum(1)",
        "l_simple_of_a_network_that_says_0_is_the_mean_square_of_the_noise l_simple_is_the_papers_formula",
        "a sum over the pixels called a mean",
    ),
    (
        "snr(schedule, t) + 1 / sigma_data**2",
        "snr(schedule, t) + sigma_data**2",
        "edms_weight_is_karras_lambda_and_makes_its_row_count_once",
        "EDM's weight with sigma_data for 1 / sigma_data",
    ),
    (
        "(x_0 - x_0_hat).detach(), std",
        "x_0 - x_0_hat, std",
        "likelihood::the_bound_in_the_hybrid_loss_leaves_the_mean_alone",
        "the bound's gradient let into the mean",
    ),
    (
        "return 1 / (N * onto(t.device, self.probability, t.dtype)[k])",
        "return 1 / onto(t.device, self.probability, t.dtype)[k]",
        "importance_keeps_the_expectation",
        "importance weights without 1 / N",
    ),
    (
        "+ 1 / sigma_data**2",
        "+ 2 / sigma_data",
        "edms_weight_is_karras_lambda_and_makes_its_row_count_once",
        "EDM's weight, right at sigma_data = 0.5 only",
    ),
    (
        "clamp(max=gamma)",
        "clamp(max=5.0)",
        "simple_is_the_weight_of_eps_and_min_snr_caps_it_from_above",
        "min-SNR with a fixed cap",
    ),
    (
        "log_ratio = mean + std * torch.randn",
        "log_ratio = -1.2 + 1.2 * torch.randn",
        "log_normal_times_have_edms_noise_levels_or_others",
        "EDM's times with fixed numbers",
    ),
    (
        "    u = _rand(batch, generator)\n    slices",
        "    u = _rand(batch, generator)[:1]\n    slices",
        "stratified_times_have_one_in_each_slice_in_random_order",
        "one draw for all slices of time",
    ),
]

LIKELIHOOD: list[Row] = [
    (
        "return (at_1 + y[:, -1] + D * torch.log(alpha))",
        "return (at_1 - y[:, -1] + D * torch.log(alpha))",
        "on_a_mixture_the_odes_likelihood_is_exact_to_1e_4_nats_with_the_exact_prior",
        "the divergence's sign",
    ),
    (
        "return (at_1 + y[:, -1] + D * torch.log(alpha))",
        "return (at_1 + y[:, -1])",
        "a_path_that_starts_in_noise_gives_the_density_of_data_with_that_much_noise",
        "the change of variables x / alpha forgotten",
    ),
    (
        "z = None if probes is None else torch.sign(noise_like(x_0.expand(probes, *x_0.shape), generator))",
        "z = None if probes is None else 2 * torch.sign(noise_like(x_0.expand(probes, *x_0.shape), generator))",
        "hutchinsons_likelihood_is_near_the_exact_one_on_average",
        "probes whose covariance is not the identity",
    ),
    (
        "decoded = Normal(denoiser(x_t, t, condition), sigma_t)",
        "decoded = Normal(denoiser(x_t, t, condition), sigma_t**2)",
        "the_estimate_agrees_with_the_closed_form",
        "the decoder's variance for its standard deviation",
    ),
    (
        "for t, s in itertools.pairwise(times[:-1]):",
        "for t, s in itertools.pairwise(times[1:-1]):",
        "a_constant_error_costs_the_whole_fall_of_the_snr_from_t_1_to_the_first_noise",
        "the term of the first step left out",
    ),
    (
        "return x_0 + (2 * u.to(x_0.device) - 1) / (levels - 1)",
        "return x_0 + u.to(x_0.device) / (levels - 1)",
        "dequantised_values_fill_their_level_evenly",
        "dequantisation over half a level",
    ),
]

GUIDANCE: list[Row] = [
    (
        "return without + (w if isinstance(w, float) else expand(w, x_t)) * (with_label - without)",
        "return with_label + (w if isinstance(w, float) else expand(w, x_t)) * (with_label - without)",
        "with_exact_parts_the_two_guidances_are_one the_guided_score_is_that_of_the_tilted_noisy_density",
        "1 + w for w",
    ),
    (
        "with_label, without = both.chunk(2)",
        "without, with_label = both.chunk(2)",
        "with_exact_parts_the_two_guidances_are_one",
        "the two halves of the batch changed over",
    ),
    (
        "shift = expand(sigma**2 / alpha, x_t)",
        "shift = expand(sigma, x_t)",
        "at_scale_0_guidance_forgets_the_label_and_at_1_it_is_bayes_rule",
        "classifier guidance in eps's units, added to x_0",
    ),
    (
        "return float(scale) if bool((t > low) & (t <= high)) else outside",
        "return outside if bool((t > low) & (t <= high)) else float(scale)",
        "outside_the_interval_there_is_no_guidance_and_no_cost",
        "guidance everywhere but in its interval",
    ),
    (
        "x_0_hat - expand(self.scale * self.schedule.alpha(t) / 2, x_t) * gradient",
        "x_0_hat + expand(self.scale * self.schedule.alpha(t) / 2, x_t) * gradient",
        "reconstruction_guidance_is_the_papers_formula",
        "reconstruction guidance uphill",
    ),
    (
        "torch.where(mask, known, self.denoiser(x_t, t, condition))",
        "torch.where(mask, known, self.denoiser(x_t, t))",
        "what_is_filled_in_is_of_the_class_that_was_asked_for",
        "inpainting that forgets the label",
    ),
    (
        "x_0_hat = self.denoiser(x, t, condition)",
        "x_0_hat = self.denoiser(x, t)",
        "what_is_filled_in_is_of_the_class_that_was_asked_for",
        "reconstruction guidance that forgets the label",
    ),
    (
        "torch.rsqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2)",
        "torch.sqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2)",
        "the_network_of_a_noisy_classifier_sees_data_of_variance_1",
        "a classifier's input scaled the wrong way",
    ),
]

GAUSSIAN: list[Row] = [
    (
        "log_prob = -0.5 * (residual / self.std) ** 2 - torch.log(self.std) - 0.5 * math.log(2 * math.pi)",
        "log_prob = -0.5 * (residual / self.std) ** 2 - torch.log(self.std) - math.log(2 * math.pi)",
        "log_prob_and_kl_agree_with_torch_distributions",
        "the normal density without the root of 2 pi",
    ),
    (
        "v = (self.std / other.std) ** 2",
        "v = (other.std / self.std) ** 2",
        "log_prob_and_kl_agree_with_torch_distributions",
        "the KL the wrong way round",
    ),
    (
        "half = 1.0 / (levels - 1)",
        "half = 1.0 / levels",
        "the_discretised_probabilities_of_all_256_values_sum_to_1",
        "256 bins on an interval that has 255",
    ),
    (
        "upper = torch.where(x > 1 - half, math.inf, (x + half - normal.mean) / normal.std)",
        "upper = (x + half - normal.mean) / normal.std",
        "the_discretised_probabilities_of_all_256_values_sum_to_1",
        "the last bin closed",
    ),
    (
        "return nats / (dims * math.log(2)) - math.log2(scale)",
        "return nats / (dims * math.log(2))",
        "bits_per_dim_of_a_density_and_of_a_probability",
        "the offset of 7 bits forgotten",
    ),
    (
        "return nats / (dims * math.log(2)) - math.log2(scale)",
        "return nats / dims - math.log2(scale)",
        "bits_per_dim_of_a_density_and_of_a_probability",
        "nats called bits",
    ),
]

ODE: list[Row] = [
    (
        "(19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729)",
        "(19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 792)",
        "the_tableau_is_scipys",
        "two digits of the tableau changed over",
    ),
    (
        "factor = max(2 * error, 1e-8) ** (-0.7 / order)",
        "factor = max(2 * error, 1e-8) ** (0.7 / order)",
        "the_controller_aims_at_an_error_of_one_half",
        "a controller that steps longer the more it errs",
    ),
    (
        "            h *= max(0.2, (2 * error) ** (-1 / pair.order))",
        "            h *= 1.0",
        "a_step_that_fails_is_tried_shorter",
        "a rejected step tried again as it was",
    ),
    (
        "slopes.append(f(t + c * h, y_new))",
        "slopes.append(f(t + h, y_new))",
        "the_solution_has_the_stated_order_and_the_difference_one_less",
        "every stage at the end of the step",
    ),
    (
        "** (-0.7 / order)",
        "** (-0.6 / order)",
        "the_controller_aims_at_an_error_of_one_half",
        "another exponent in the controller",
    ),
]

ADAPTIVE: list[Row] = [
    (
        "x_s = (x_euler + x - h * F_s + expand(schedule.diffusion(s), x) * dW) / 2",
        "x_s = (x_euler + x - h * F_s + expand(schedule.diffusion(t), x) * dW) / 2",
        "the_error_of_the_first_sde_step_is_the_papers",
        "the corrector's noise by the rate where the step starts",
    ),
    (
        "part = part + math.sqrt(left * (length - left) / length)",
        "part = part + math.sqrt(left)",
        "noise_that_is_given_back_and_divided_is_one_brownian_path",
        "a rejected step's noise divided without the bridge",
    ),
    (
        "            noise.give_back()\n",
        "            pass\n",
        "each_rejected_step_gives_its_noise_back",
        "fresh noise after a rejection: small noise is favoured",
    ),
    (
        "0.9 * max(error, 1e-6) ** -0.9",
        "0.9 * max(error, 1e-6) ** -0.5",
        "the_next_step_of_the_sde_solver_is_the_papers_rule",
        "another exponent in the SDE solver's step",
    ),
]

ANALYTIC: list[Row] = [
    (
        "stds = torch.sqrt((alpha * self.stds) ** 2 + sigma**2)",
        "stds = torch.sqrt(self.stds**2 + sigma**2)",
        "the_marginal_is_the_distribution_of_noised_samples",
        "a component that is not shrunk",
    ),
    (
        "gain = alpha * mixture.stds**2 / marginal.stds**2",
        "gain = mixture.stds**2 / marginal.stds**2",
        "the_denoiser_is_the_posterior_mean_by_numerical_integration",
        "Wiener's gain without alpha",
    ),
    (
        "- torch.log(stds).sum(-1) - self.dim / 2",
        "- torch.log(stds).mean(-1) - self.dim / 2",
        "log_prob_is_the_torch_mixtures",
        "a determinant of one direction for all D",
    ),
    (
        "(alpha * (x @ x_n.T) - alpha**2 * (x_n**2).sum(1) / 2) / sigma**2",
        "(alpha * (x @ x_n.T) - alpha**2 * (x_n**2).sum(1) / 2) / sigma",
        "the_empirical_denoiser_is_the_mixture_of_points",
        "a softmax at the wrong temperature",
    ),
]

METRICS: list[Row] = [
    (
        "float(shift @ shift + C_a.trace() + C_b.trace() - 2 * cross)",
        "float(shift.norm() + C_a.trace() + C_b.trace() - 2 * cross)",
        "the_distance_of_two_gaussians_is_the_closed_form",
        "the Fréchet distance with its shift not squared",
    ),
    (
        "cross = torch.linalg.eigvalsh(R @ C_b @ R).clamp(min=0).sqrt().sum()",
        "cross = torch.linalg.eigvalsh(C_a).sqrt() @ torch.linalg.eigvalsh(C_b).sqrt()",
        "the_distance_of_two_gaussians_is_the_closed_form",
        "covariances taken to have the same axes",
    ),
    (
        "for pair in ((a, b), (b, a))",
        "for pair in ((a, b),)",
        "the_standard_error_of_the_distance_is_the_jackknifes",
        "the chance in the real examples forgotten",
    ),
    (
        "return 2 * x @ (a.mean(0) - b.mean(0)) + ",
        "return x @ (a.mean(0) - b.mean(0)) + ",
        "the_standard_error_of_the_distance_is_the_jackknifes",
        "a derivative without its factor 2",
    ),
    (
        "T = inverse @ _root(R @ _covariance(b) @ R) @ inverse",
        "T = inverse @ R @ _covariance(b) @ R @ inverse",
        "the_standard_error_of_the_distance_is_the_jackknifes",
        "the map from one Gaussian to the other without its root",
    ),
    (
        "(x @ y.T / x.shape[1] + 1) ** 3",
        "(x @ y.T / x.shape[1] + 1) ** 2",
        "kid_of_two_gaussians_is_what_their_first_three_moments_say",
        "KID's kernel with another power",
    ),
    (
        "            table.diagonal(rows.start).zero_()\n",
        "",
        "between_sets_of_one_distribution_the_mean_is_0_at_any_n "
        "value_and_error_are_those_of_the_definition_pair_by_pair",
        "pairs of an example with itself: a biased distance",
    ),
    (
        "            d.diagonal(rows.start).fill_(math.inf)\n",
        "",
        "precision_and_recall_are_those_of_scikit_learns_neighbours",
        "an example taken for its own nearest neighbour",
    ),
    (
        "return PrecisionRecall(float(y_covered.double().mean()), float(x_covered.double().mean()))",
        "return PrecisionRecall(float(x_covered.double().mean()), float(y_covered.double().mean()))",
        "samples_of_one_of_two_modes_have_precision_1_and_recall_one_half",
        "precision and recall changed over",
    ),
]

TWO = "two_processes_have_the_losses_of_one_and_one_of_them_writes"  # processes

TRAINER: list[Row] = [
    (
        "torch.clamp((1 + n) / (10 + n), max=self.decay)",
        "((1 + n) / (10 + n))",
        "the_average_follows_the_weights_with_a_warmed_up_decay",
        "an average whose warm-up never ends",
    ),
    (
        "            average.copy_(current)\n",
        "            pass\n",
        "the_average_has_the_buffers_of_the_model",
        "an average with the buffers of the start",
    ),
    (
        "self._rate(), now - started, pace",
        "self._rate(), now - last, pace",
        "seconds_are_counted_from_the_start_and_the_pace_from_the_last_report",
        "seconds since the last report for those of the run",
    ),
    (
        '("cuda", "mps", "cpu")',
        '("cpu", "mps", "cuda")',
        "auto_is_the_best_device_that_is_there",
        "auto that never takes a GPU",
    ),
    (
        '"bf16" if computes_in_bf16(device) else "fp32"',
        '"fp32"',
        "auto_is_bf16_where_the_device_computes_in_it",
        "auto that never takes bf16",
    ),
    (
        "        if self._accelerator.is_main_process:\n            self._write(Path(folder))",
        "        if True:\n            self._write(Path(folder))",
        f"{TWO} cli::two_processes_go_on_from_one_with_its_losses",
        "checkpoints that every process writes",
    ),
    (
        "first = self._accelerator.process_index * config.accumulate",
        "first = 0",
        TWO,
        "every process with the first one's slice of the batch",
    ),
    (
        "else condition.chunk(self._shares)[first : first + config.accumulate]",
        "else condition.chunk(self._shares)[: config.accumulate]",
        TWO,
        "every process with the first one's labels",
    ),
    (
        "each = each * onto(each.device, self.times.factor(t), each.dtype)",
        "pass",
        "importance_is_weighed_back",
        "times drawn by importance, and their factor forgotten",
    ),
    (
        "hidden = torch.rand(len(x_0), generator=generator, device=self.device) < config.label_drop",
        "hidden = torch.rand(len(x_0), device=self.device) < config.label_drop",
        f"{TWO} resume_is_bitwise_on_a_cpu_dropout_included",
        "hidden labels of PyTorch's global generator",
    ),
    (
        "condition = condition.long().masked_fill(hidden, NO_LABEL)",
        "condition = condition.long().masked_fill(hidden & (self._accelerator.process_index == 0), NO_LABEL)",
        TWO,
        "labels that one process hides and the others do not",
    ),
    (
        "generator = self._generator.manual_seed(seed_of(config.seed, self.step))",
        "generator = self._generator.manual_seed(seed_of(config.seed, self.step, self._accelerator.process_index))",
        TWO,
        "noise and times that each process draws for itself",
    ),
    (
        'p.grad = self._accelerator.reduce(grad, reduction="mean")',
        "p.grad = grad",
        TWO,
        "a parameter beside the network whose gradients are not averaged",
    ),
]

NAMES: list[Row] = [
    (
        "lambda: ancestral(transition_std)",
        "ancestral",
        "cli::a_samplers_name_walks_as_the_sampler_does_and_as_no_other",
        "a name for the other variance",
    ),
    (
        '"sub_vp": SubVPSchedule',
        '"sub_vp": VPSchedule',
        "cli::every_name_makes_what_it_says",
        "a name for another schedule",
    ),
    (
        '"score": lambda: SCORE',
        '"score": lambda: EPS',
        "cli::every_name_makes_what_it_says",
        "a name for another row",
    ),
    (
        '"elbo": lambda: elbo_weight',
        '"elbo": lambda: simple',
        "cli::every_name_makes_what_it_says",
        "a name for another weight",
    ),
]

SAMPLES: list[Row] = [
    (
        "if settings.clip and recipe.of_pictures:",
        "if False:",
        "cli::samples_are_clipped_as_asked_and_each_is_asked_for_by_its_label",
        "a clip that is asked for and not done",
    ),
    (
        "condition[k : k + BATCH]",
        "condition[:BATCH]",
        "cli::samples_are_clipped_as_asked_and_each_is_asked_for_by_its_label",
        "the first batch's labels for every batch",
    ),
]

NETWORKS: list[Row] = [
    (
        "nn.Dropout(dropout)",
        "nn.Dropout(0.0)",
        "unet::dropout_acts_in_training_and_not_in_eval_mode",
        "dropout that drops nothing",
    ),
]

UNET: list[Row] = [
    (
        'mode="replicate"',
        'mode="constant"',
        "where_patches_do_not_fit_the_edge_is_repeated",
        "an edge of zeros",
    ),
]

DATA: list[Row] = [
    (
        "angle = squared.sqrt()",
        "angle = squared / end",
        "analytic::swiss_is_a_spiral_evenly_spaced_along_its_length",
        "a spiral spaced evenly in its angle",
    ),
    (
        "angle * angle.cos(), angle * angle.sin()",
        "angle.cos(), angle.sin()",
        "analytic::swiss_is_a_spiral_evenly_spaced_along_its_length",
        "a spiral that is a circle",
    ),
    (
        "angle = 2 * math.pi * torch",
        "angle = math.pi * torch",
        "analytic::a_ring_closes",
        "half a ring",
    ),
]

STORAGE: list[Row] = [
    (
        'beside.open("xb")',
        'os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")',
        "a_file_has_the_rights_that_the_users_files_have",
        "checkpoints that only their owner may read",
    ),
]


# ------------------------------------------------------------------------------------------------ running


def run(nodes: list[str], folder: Path, seconds: int) -> int:
    """pytest's exit code in the copy, in a process of its own that has PyTorch loaded; -14 if it ran too long."""
    child = os.fork()
    if child == 0:
        code = 99  # whatever happens, this copy of the process goes no further than here
        try:
            signal.alarm(seconds)  # not caught: the process ends
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            quiet = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # one of them takes longer to load than the tests
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", f"--rootdir={folder}"]
            code = int(pytest.main([*options, *nodes]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def copied(folder: Path) -> Path:
    """The package and its tests in a folder where they may be spoilt."""
    for name in ("diffusion_edu", "tests", "recipes", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def verdict(mutant: Mutant, folder: Path) -> str:
    """What became of it: killed, survived, endless, or broken (which is the mutant's fault and not the tests')."""
    path = folder / mutant.path
    right = path.read_text(encoding="utf-8")
    if right.count(mutant.old) != 1:
        return "broken: its text is not there once"
    path.write_text(right.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code = run(mutant.nodes, folder, SECONDS)
    finally:
        path.write_text(right, encoding="utf-8")
    if code == 0:
        return "survived"
    # The tests are there, and green without the mutant: a file of them that cannot be loaded has seen it too.
    how = {1: "killed", 2: "killed on import", 4: "killed on import", -signal.SIGALRM: "killed: endless"}
    return how.get(code, f"broken: pytest ended with {code}")


def main(arguments: list[str] | None = None) -> int:
    """0 if all are killed but those of SURVIVORS, 1 if not, 2 if the question could not be asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants whose module or reason contains one of these")
    parser.add_argument("--list", action="store_true", help="print them and run nothing")
    given = parser.parse_args(arguments)
    chosen = [m for m in mutants() if not given.words or any(w in f"{m.module} {m.why}" for w in given.words)]
    if given.list or not chosen:
        print(*(f"{m.module:<17}{m.why}" for m in chosen), sep="\n")
        return 0 if chosen else 2

    sys.dont_write_bytecode = True  # a mutant as long and as old as the right code would be taken for it
    import scipy.stats  # noqa: F401  (what the tests need, loaded once for all)
    import sklearn.neighbors  # noqa: F401
    import torch  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(Path(scratch))
        every = sorted({node for mutant in chosen for node in mutant.nodes})
        code = run(every, folder, 10 * SECONDS)
        if code != 0:
            print((folder / "output").read_text(encoding="utf-8"))
            print(f"The tests are red without any mutant (pytest ended with {code}).")
            return 2
        results = []
        for mutant in chosen:
            start = time.monotonic()
            results.append(verdict(mutant, folder))
            seconds = time.monotonic() - start
            print(f"{results[-1]:<17}{seconds:6.1f} s  {mutant.module:<17}{mutant.why}", flush=True)
    killed = [mutant for mutant, result in zip(chosen, results, strict=True) if result.startswith("killed")]
    imported = results.count("killed on import")
    print(f"{len(killed)} of {len(results)} killed: {len(killed) / len(results):.1%}; {imported} of them on import")
    for mutant in killed:
        if mutant.why in SURVIVORS:
            print(f"{mutant.why!r} is in SURVIVORS and has been killed: take it out")
    survivors = [mutant for mutant, result in zip(chosen, results, strict=True) if result == "survived"]
    for mutant in survivors:
        print(f"survived: {mutant.why} ({SURVIVORS.get(mutant.why, 'nobody has said why')})")
    if any(result.startswith("broken") for result in results):
        return 2
    as_expected = {mutant.why for mutant in survivors} == SURVIVORS.keys() & {mutant.why for mutant in chosen}
    return 0 if as_expected else 1


if __name__ == "__main__":
    raise SystemExit(main())

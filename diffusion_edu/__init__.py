"""diffusion_edu: diffusion models, from the derivation to the samples, in files that read like the textbook.

    x_t = alpha(t) x_0 + sigma(t) eps,   t in [0, 1],   the data at t = 0

A **schedule** is (alpha, sigma). A **denoiser** is (x_t, t) -> E[x_0 | x_t]. A **step** takes a state at t to a state
at s < t. A **loss** is (model, x_0) -> one number per example. Everything here is one of the four.
"""

from .analytic import GaussianMixture, MixtureDenoiser
from .data import Components, Data, Fresh, ImageSet, TensorData, mnist_5k, moons, ring, swiss, to_model_range, to_uint8
from .denoiser import Denoiser, DiffusionModel, State, angle, eps, score, velocity
from .gaussian import Normal, bits_per_dim, discretized_log_prob
from .loss import TimeSampler, Weight, denoising_loss, stratified, uniform
from .metrics import agreement, digit_classifier, digit_classifier_card, frechet_distance, predict
from .networks import NO_LABEL, AttentionBlock, Classifier, FourierFeatures, ResidualBlock, ResidualMLP
from .parameterization import EPS, SCORE, VELOCITY, X0, Parameterization, V, edm
from .process import posterior_std, prior, q_marginal, q_posterior, q_sample, q_transition, transition_std
from .sampler import Step, ancestral, ddim, sample, times, trajectory
from .schedule import (
    BetaSchedule,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    NoiseSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)
from .storage import load_weights, save_weights
from .trainer import Loss, Progress, TrainConfig, Trainer, TrainingDivergedError
from .unet import UNet

__version__ = "0.1.0"

__all__ = [
    "EPS",
    "NO_LABEL",
    "SCORE",
    "VELOCITY",
    "X0",
    "AttentionBlock",
    "BetaSchedule",
    "Classifier",
    "Components",
    "CosineSchedule",
    "Data",
    "Denoiser",
    "DiffusionModel",
    "EDMSchedule",
    "FlowSchedule",
    "FourierFeatures",
    "Fresh",
    "GaussianMixture",
    "ImageSet",
    "Loss",
    "MixtureDenoiser",
    "NoiseSchedule",
    "Normal",
    "Parameterization",
    "Progress",
    "ResidualBlock",
    "ResidualMLP",
    "State",
    "Step",
    "SubVPSchedule",
    "TensorData",
    "TimeSampler",
    "TrainConfig",
    "Trainer",
    "TrainingDivergedError",
    "UNet",
    "V",
    "VESchedule",
    "VPSchedule",
    "Weight",
    "agreement",
    "ancestral",
    "angle",
    "bits_per_dim",
    "ddim",
    "denoising_loss",
    "digit_classifier",
    "digit_classifier_card",
    "discretized_log_prob",
    "edm",
    "eps",
    "frechet_distance",
    "load_weights",
    "mnist_5k",
    "moons",
    "posterior_std",
    "predict",
    "prior",
    "q_marginal",
    "q_posterior",
    "q_sample",
    "q_transition",
    "ring",
    "sample",
    "save_weights",
    "score",
    "stratified",
    "swiss",
    "times",
    "to_model_range",
    "to_uint8",
    "trajectory",
    "transition_std",
    "uniform",
    "velocity",
]

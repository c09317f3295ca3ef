"""What the comparisons share."""

import importlib

import numpy as np
import pytest
import torch

from tests.agreement.peers import InFloat64, peer

SCHEDULERS = (
    "ddim",
    "ddim_inverse",
    "ddpm",
    "dpmsolver_multistep",
    "edm_euler",
    "euler_discrete",
    "flow_match_euler_discrete",
    "heun_discrete",
)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' schedulers in float64: they make their tables in float32, and some cast their samples to it.

    So a test sees whether the formulae agree, to 1e-12, and not how float32 rounds.
    """
    peer("diffusers", "course")
    for name in SCHEDULERS:
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{name}")
        for library in (np, torch):
            short = "np" if library is np else "torch"
            if hasattr(module, short):
                monkeypatch.setattr(module, short, InFloat64(library))

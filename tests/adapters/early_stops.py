"""Plans and a certificate for the built-in model, for the tests of early stops in frameworks."""

from __future__ import annotations

import numpy as np

from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.decide import StopCertificate, StopPlan, StopRule
from bitcal_integrations.tiny.tasks import questions

SETTLES = StopPlan(settled=StopRule("settled", "trial_probability", 0.9))
GIVES_UP = StopPlan(hopeless=StopRule("hopeless", "tokens", 1e9))  # at the first checkpoint
PROMPTS = [q.prompt for q in questions("math", "test", 40, seed=4) if q.wording == "plain"][:5]


def certified() -> StopCertificate:
    """A certificate for SETTLES, whose exits are right as often as their score says."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, 400)
    right = rng.random(400) < scores
    calibrator = fit_calibrator(
        scores[:, None], right, names=("trial_probability",), method="platt"
    )
    return StopCertificate(SETTLES, 0.05, 0.1, 400, saved=0.4, calibrator=calibrator)

"""Early stops for the built-in model's word problems: whole runs, and the certificates they give.

Runs are kept in a file, so that a cut run goes on. Their questions are neither test questions nor
those that the profiles were fitted and reported on. Knows questions and files; how rules are found
and tested is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bitcal_integrations.answered import Progress
from bitcal_integrations.dataset import Example
from bitcal_integrations.decide.stop import PRESETS, LoggedRun, StopCertificate
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile
from bitcal_integrations.stopping import certify_stops, log_runs
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.answers import MAX_NEW_TOKENS, PARSER
from bitcal_integrations.tiny.tasks import stream

TASK = "math"  # answers to the others are too short to end early
SEED = 4021
DELTA = 0.1


def draw(n: int, labels: int) -> list[Example]:
    """Word problems, no two alike, and none of the `labels` that profiles are measured on."""
    taken = {e.group for e in measure.draw("calibration", labels, measure.LABELS_SEED)}
    fresh = {q.id: q for q in islice(stream(TASK, "calibration", SEED), 2 * n)}
    chosen = [q for q in fresh.values() if q.id not in taken][:n]
    return measure.examples_of(chosen)


def log(
    model: CalibratedModel, asked: Sequence[Example], keep: Path, progress: Progress | None
) -> list[LoggedRun]:
    """A whole run of every question, with a trial answer at each line."""
    return log_runs(
        model, asked, keep=keep, parser=PARSER, grader="tiny", max_new_tokens=MAX_NEW_TOKENS,
        progress=progress,
    )  # fmt: skip


def certified(model: CalibratedModel, profile: Profile, runs: Sequence[LoggedRun]) -> Profile:
    """The model's profile with a certificate for each preset; each holds by itself."""
    model.use_profile(profile)
    return certify_stops(model, runs, delta=DELTA, task=TASK)


def told(profile: Profile, runs: Sequence[LoggedRun]) -> dict[str, Any]:
    """What the card says: each preset's rule and evidence, and how often whole runs are right."""
    right = sum(bool(run.right) for run in runs) / len(runs)
    made = {c.max_loss: c for c in profile.task(TASK).stops}
    presets = {name: _numbers(made[loss]) for name, loss in PRESETS.items() if loss in made}
    return {"runs": len(runs), "right": round(right, 4), "presets": presets}


def _numbers(certificate: StopCertificate) -> Mapping[str, Any]:
    rule = certificate.plan.settled if certificate.plan else None
    saved = (certificate.saved, certificate.saved_low, certificate.saved_high)
    return {
        "max_loss": certificate.max_loss,
        "rule": str(rule) if rule else None,
        "reason": certificate.reason,
        "tested": certificate.n,
        "lost": certificate.losses["settled"],
        "ended": round(certificate.ended.get("settled", 0.0), 4),
        "saved": [round(share, 4) for share in saved],
    }

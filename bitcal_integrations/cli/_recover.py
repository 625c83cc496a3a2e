"""What `bitcal quantize --recover` does more: trains norm gains before the folder is written.

Knows the options; what is trained, and when it is kept, is recovery's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcal_integrations.model import CalibratedModel
    from bitcal_integrations.recovery import Recovered

GIVEN = ("parser", "grader", "teacher")
LONGEST = 512  # tokens of an answer, as in `bitcal calibrate`


def check(data: str | None, given: Mapping[str, Any], quantizes: bool) -> None:
    """Refuse what will not do, before a model is loaded for it."""
    from bitcal_integrations.errors import BadRequest
    from bitcal_integrations.grading import as_parser

    if data is None and given["teacher"] is not None:
        raise BadRequest("--teacher belongs to --recover: nothing else learns from a model")
    if data is not None:
        if not quantizes:
            raise BadRequest("--recover betters quantized weights, and --weights none gives others")
        as_parser(given["parser"])
        from bitcal_integrations.recovery import held_apart

        held_apart(data, grader=given["grader"] or "normalised")


def recovered(
    model: CalibratedModel, data: str | None, out: str, given: Mapping[str, Any]
) -> Recovered | None:
    """What came of it; nothing is done without data."""
    if data is None:
        return None
    from bitcal_integrations.cli._show import progress
    from bitcal_integrations.recovery import kept_beside, recover_model

    options = {name: given[name] for name in GIVEN if given[name] is not None}
    with progress() as report:
        return recover_model(
            model, data, keep=kept_beside(out), progress=report, max_new_tokens=LONGEST, **options
        )


def forget(out: str) -> None:
    """Remove what was kept beside the folder."""
    from bitcal_integrations import recovery

    recovery.forget(out)

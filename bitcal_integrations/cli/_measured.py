"""How a profile's task reads on the screen: what was measured, and what is promised.

Knows profiles; nothing of how one comes about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcal_integrations.decide import Certificate
    from bitcal_integrations.profile import Profile


def draw(screen: Any, profile: Profile, task: str) -> None:
    """What was measured and what is promised."""
    from bitcal_integrations.cli._labelled import score_table

    one = profile.task(task)
    counts = one.counts
    screen.print(
        f"{counts['examples']} examples: {counts['fit']} to fit, {counts['certify']} to certify, "
        f"{counts['report']} to report; {counts['unanswered']} without an answer, "
        f"{counts['unjudged']} without a verdict",
        soft_wrap=True,
    )
    screen.print(f"calibrator {one.calibrator.method}: {one.calibrator.reason}", soft_wrap=True)
    if one.schema.probe is not None:
        screen.print(f"probe behind layer {one.schema.layer}: {one.schema.probe.reason}")
    if one.scores:
        screen.print(score_table(one.scores))
    for certificate in one.certificates:
        screen.print(str(certificate), soft_wrap=True)
    if one.certificates and one.certificates[0].simultaneous > 1:
        screen.print(together(one.certificates[0]), soft_wrap=True)
    if one.transferred_from:
        screen.print(f"carried over from the profile {one.transferred_from}", soft_wrap=True)
    if not one.certificates:
        screen.print("no certificate: no labels of this model were kept apart for one")
    flips = one.flips
    if flips["n"]:
        screen.print(
            f"{flips['changed']} of {flips['n']} decisions at {flips['threshold']:.2f} changed "
            f"between batch 1 and batch {flips['batch']}",
            soft_wrap=True,
        )


def together(certificate: Certificate) -> str:
    """What it costs that several certificates hold at once."""
    many, delta = certificate.simultaneous, certificate.delta
    return (
        f"all {many} hold at once with probability {1 - delta:.4g}: they share the chance "
        f"{delta:.3g} of being wrong, so each is held to {delta:.3g} / {many} = "
        f"{delta / many:.3g} and needs the labels for that, as bitcal plan counts them"
    )

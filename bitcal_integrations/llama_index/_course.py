"""Drives a question through a primary and its fallbacks: asks, and lets the Cascade decide.

Sync and async in the same few lines. Knows neither engines nor llms: it is given functions that
ask number i and that read a Record out of the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bitcal_integrations.chains.cascade import Cascade, Outcome
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.decide.policy import Policy, as_policy
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Decision, Record

MIN_CONFIDENCE = 0.7
Ask = Callable[[int], Any]
Judge = Callable[[int, Any], Record | None]


def policy_of(policy: Any, min_confidence: float | None, on_unknown: str | None = None) -> Policy:
    """One policy from `policy=` or from the short form `min_confidence=`; both are refused."""
    if policy is not None and min_confidence is not None:
        raise BadRequest(
            f"policy={policy!r:.80} and min_confidence={min_confidence!r} say the same twice: "
            "give one of them"
        )
    what = policy if policy is not None else min_confidence
    what = MIN_CONFIDENCE if what is None else what
    more: dict[str, Any] = {} if on_unknown is None else {"on_unknown": on_unknown}
    return as_policy(what, **more)


def distinct(names: Sequence[str]) -> list[str]:
    """The names with a number behind each that came before.

    >>> distinct(["a", "b", "a"])
    ['a', 'b', 'a#2']
    """
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


def run(cascade: Cascade, ask: Ask, judge: Judge) -> dict[int, Any]:
    """Every answer that came, by number. It ends early at one that `judge` has no Record of yet:
    a stream that is to be shown before it is judged."""
    answers: dict[int, Any] = {}
    while (index := cascade.next) is not None:
        try:
            answers[index] = ask(index)
        except Exception as error:
            failed(cascade, error)
            continue
        record = judge(index, answers[index])
        if record is None:
            break
        cascade.judge(record)
    return answers


async def arun(
    cascade: Cascade, ask: Callable[[int], Awaitable[Any]], judge: Judge
) -> dict[int, Any]:
    """`run` for an event loop."""
    answers: dict[int, Any] = {}
    while (index := cascade.next) is not None:
        try:
            answers[index] = await ask(index)
        except Exception as error:
            failed(cascade, error)
            continue
        record = judge(index, answers[index])
        if record is None:
            break
        cascade.judge(record)
    return answers


def failed(cascade: Cascade, error: Exception) -> None:
    """Pass over a failed attempt, or raise its error; a workflow that waits has not failed."""
    waiting = getattr(sys.modules.get("workflows.runtime.types.results"), "WaitingForEvent", ())
    if isinstance(error, waiting):
        raise error
    cascade.failed(error)


def given(cascade: Cascade, outcome: Outcome) -> Record:
    """The record of what is given in the end, with the outcome as its decision."""
    decision = Decision(outcome.action, outcome.reason)
    if outcome.index is None:
        reason = f"no model's answer is given: {outcome.reason}"
        return replace(unknown_record(outcome.text or "", reason=reason), decision=decision)
    record = cascade.attempts[outcome.index].record
    assert record is not None
    return replace(record, decision=decision)


def live_last(policy: Policy, on_exhausted: str) -> bool:
    """Whether a stream may show the last answer as it comes: only where it is given anyhow."""
    if on_exhausted not in ("best", "last"):
        return False
    low, unknown = (getattr(policy, rule, "escalate") for rule in ("below", "on_unknown"))
    return low == "escalate" and unknown != "raise"


def listed(name: str, what: Any) -> list[Any]:
    """The list that an argument holds; one thing where several are wanted is refused."""
    if isinstance(what, Sequence) and not isinstance(what, str):
        return list(what)
    raise BadRequest(f"{name}={what!r:.80} must be a list")


def check_names(names: Sequence[str] | None, own: Sequence[str]) -> list[str]:
    """The names given, one for each that is asked, or their own made distinct."""
    if names is None:
        return distinct(own)
    if isinstance(names, str) or len(names) != len(own) or len(set(names)) != len(own):
        raise BadRequest(f"names={names!r:.80} must be {len(own)} different names")
    return list(names)


def check_scored_by(
    scored_by: Mapping[int | str, Profile] | None, names: Sequence[str]
) -> dict[int, Profile]:
    """Profiles by number; one that belongs to nobody is refused."""
    found = {}
    for key, profile in (scored_by or {}).items():
        if key not in names and key not in range(len(names)):
            raise BadRequest(f"scored_by has {key!r}: the names are {', '.join(names)}")
        if not isinstance(profile, Profile):
            raise BadRequest(f"scored_by[{key!r}]={profile!r:.60} must be a Profile")
        found[key if isinstance(key, int) else names.index(key)] = profile
    return found

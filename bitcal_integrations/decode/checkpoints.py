"""Places where a generation may end early, and what is done there: one watcher per row.

At a checkpoint the watcher measures the scores that cost nothing and asks the plan; where the plan
wants a trial answer, the row speaks it in its own place in the batch, and then takes it back or
ends with it. A place is a checkpoint only if the closing text and the longest trial answer still
fit into the request's tokens. It knows no rules: those are in the plan.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from bitcal_integrations.decide._stop_asked import as_asked, plan_of
from bitcal_integrations.decide.logged import Checkpoint
from bitcal_integrations.decide.stop import StopPlan
from bitcal_integrations.decode._trial import Closing, Ending, Telling, Word
from bitcal_integrations.decode.detokenize import Detokenizer
from bitcal_integrations.decode.prompt import THINK
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import Parser
from bitcal_integrations.types import Request, Step

if TYPE_CHECKING:
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.decode.row import Row

WINDOW = 16  # tokens of the windowed scores
LONGEST_PATH = 200  # checkpoints that a stopped answer tells of
ENDS = frozenset(".!?\"')]*")
_SENTENCE = re.compile(r"[^\d\s][.!?][\"')\]*]*$")


def watcher_of(net: Net, request: Request, parse: Parser | None) -> Watcher | None:
    """What watches a row of this request; None without a plan, an error where it cannot be served.

    Sampling changes the text alone: a trial answer is always the likeliest.
    """
    plan = plan_of(as_asked(request.early_stop))
    if plan is None:
        return None
    if not net.joinable:
        raise BadRequest(
            "early_stop cannot be served by this model: a trial answer must be taken back, and its "
            f"cache cannot be cut ({net.batching})"
        )
    if request.constrained:
        raise BadRequest(
            "early_stop cannot be combined with tools or response_schema: its closing text and "
            "answer would break their form"
        )
    cut = [stop for stop in request.stop if stop in "\n" + plan.closing]
    if cut:
        raise BadRequest(f"stop={cut[0]!r} would cut the closing text {plan.closing!r}")
    net.spelling.check(plan.closing)
    return Watcher(net, plan, Ending(parse, request.stop, net.eos, plan.answer_tokens))


class Watcher:
    """A plan at work on one row. `due` and `telling` say that the batch must turn to it."""

    def __init__(self, net: Net, plan: StopPlan, ending: Ending) -> None:
        self.plan, self.seen = plan, list[Checkpoint]()
        self.due = False  # the text is at a checkpoint that has not been looked at
        self.telling: Telling | None = None
        self.kept: torch.Tensor | None = None  # the logits from which the text goes on
        self.probe_tokens = 0
        self._ending = ending
        self._detokenizer = lambda: Detokenizer(net.decode, net.literal)
        self._closings, self._cues = _closings(net, plan.closing), net.cues
        self._last = 0  # tokens at the last checkpoint
        self._told = 0  # characters up to there
        self._lowest: float | None = None
        self._measured = 0  # tokens that `_lowest` has seen

    # ---- while tokens come ---------------------------------------------------------------------

    def note(self, row: Row, start: int) -> None:
        """Note whether the row's text is at a checkpoint, now that it has grown from `start`."""
        raw, tokens, spacing = row.raw, row.new_tokens, self.plan.spacing
        if isinstance(spacing, int):
            at = tokens - self._last >= spacing
        elif "\n" in raw[start:]:
            at = bool(raw[self._told :].strip())
        else:
            at = spacing == "sentence" and raw[-1:] in ENDS
            at = at and _SENTENCE.search(raw, max(start - 2, self._told)) is not None
        if at:
            self._last, self._told = tokens, len(raw)
            closing = self._closing(raw, row.open_mark)
            self.due = tokens + len(closing.ids) + self._ending.most <= row.limit

    def look(self, row: Row, logits: torch.Tensor) -> str:
        """What to do at a checkpoint, from the logits that will choose the next token."""
        mark = row.open_mark
        closing = self._closing(row.raw, mark)
        scores = self._scores(row.steps, logits, closing.ids[0])
        self.seen.append(Checkpoint(row.new_tokens, scores))
        self.due = False
        verdict = self.plan.verdict(self.seen)
        if verdict == "trial":
            content = "" if mark else row.raw[row.content_start :]
            self.telling = Telling(closing, content, self._detokenizer(), self._ending)
            self.kept = logits.clone()
        return verdict

    def take(self, word: Word) -> str:
        """Go on with the trial answer; what to do when it has ended, else "trial"."""
        assert self.telling is not None
        if not self.telling.take(word):
            return "trial"
        trial = self.telling.trial()
        self.seen[-1] = dataclasses.replace(self.seen[-1], trial=trial)
        verdict = self.plan.verdict(self.seen)
        if verdict != "settled":
            self.probe_tokens += trial.tokens
        return verdict

    def end_trial(self) -> Telling:
        telling, self.telling, self.kept = self.telling, None, None
        assert telling is not None
        return telling

    def drop_trial(self) -> None:
        """Its tokens are lost with the cache, or nobody waits for them: look there once more."""
        if self.telling is not None:
            self.probe_tokens += len(self.end_trial().words)
            self.seen.pop()
            self.due = True

    # ---- what is measured ----------------------------------------------------------------------

    def _closing(self, raw: str, mark: str | None) -> Closing:
        """The closing text for this place; it begins a line, and closes what reasoning is open."""
        begins = "" if raw.endswith("\n") else "\n"
        opens = self.plan.closing if mark else begins + self.plan.closing
        return Closing(self._closings[begins, mark], opens)

    def _scores(self, steps: Sequence[Step], logits: torch.Tensor, first: int) -> dict[str, float]:
        """The scores that need no forward of their own, by name."""
        chances = torch.log_softmax(logits, dim=-1)
        spread = float(torch.special.entr(chances.exp()).sum())
        last = steps[-WINDOW:]
        entropy = _mean([step.entropy for step in last])
        before = [step.entropy for step in steps[-2 * WINDOW : -WINDOW]]
        return {
            "logprob": _mean([step.logprob for step in last]),
            "lowest": self._lowest_mean(steps),
            "entropy": -entropy,
            **({"entropy_trend": _mean(before) - entropy} if before else {}),
            "margin": _mean([step.margin for step in last]),
            "closing": float(chances[first]),
            **({"cue": float(torch.logsumexp(chances[self._cues], 0))} if len(self._cues) else {}),
            "next_entropy": -spread,
            "tokens": float(len(steps)),
            "lines": float(len(self.seen) + 1),
        }

    def _lowest_mean(self, steps: Sequence[Step]) -> float:
        """The lowest mean log-probability of a window so far; of all tokens while they are few."""
        logprobs = [step.logprob for step in steps[max(0, self._measured - WINDOW + 1) :]]
        self._measured = len(steps)
        if len(steps) < WINDOW:
            return _mean(logprobs)
        if len(logprobs) < WINDOW and self._lowest is not None:  # looked at once more
            return self._lowest
        total = sum(logprobs[:WINDOW])
        lowest = total
        for new, old in zip(logprobs[WINDOW:], logprobs, strict=False):
            total += new - old
            lowest = min(lowest, total)
        known = self._lowest
        self._lowest = lowest / WINDOW if known is None else min(known, lowest / WINDOW)
        return self._lowest

    # ---- what is told --------------------------------------------------------------------------

    def stopped(self, finish: str | None) -> dict[str, Any] | None:
        """Why a generation ended early, as plain JSON; None for one that did not."""
        if finish not in ("settled", "hopeless"):
            return None
        rule = self.plan.settled if finish == "settled" else self.plan.hopeless
        assert rule is not None
        first = max(0, len(self.seen) - LONGEST_PATH)
        path = [
            [self.seen[n].tokens, rule.value(self.seen[: n + 1])]
            for n in range(first, len(self.seen))
        ]
        promise = _plain(self.plan.promise)
        return {
            "level": finish,
            "rule": str(rule),
            "score": rule.score,
            "threshold": rule.threshold,
            "patience": rule.patience,
            "path": path,
            "expected_saving": promise.get("saved") if promise else None,
            "promise": promise,
        }


def _closings(net: Net, closing: str) -> dict[tuple[str, str | None], tuple[int, ...]]:
    """The tokens that ask for the answer, by what begins a line and what closes the reasoning."""
    marks = [None, *(close for _, close in THINK)]
    texts = {mark: f"{mark}\n\n{closing}" if mark else closing for mark in marks}
    return {
        (begins, mark): net.spelling(begins + text)
        for mark, text in texts.items()
        for begins in ("", "\n")
    }


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _plain(promise: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if promise is None:
        return None
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in promise.items()}

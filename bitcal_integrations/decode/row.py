"""One request while it decodes: its ids, its text, and everything that can end it.

The row decides; the batch only feeds it tokens. Order of the checks at a token: end of sequence,
stop string, complete answer, loop, length. Early stops are decided by the row's watcher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from bitcal_integrations.decode._trial import Telling, said_after
from bitcal_integrations.decode.checkpoints import watcher_of
from bitcal_integrations.decode.choose import Chooser
from bitcal_integrations.decode.detokenize import Detokenizer
from bitcal_integrations.decode.hidden import states_of
from bitcal_integrations.decode.loops import EVERY, WINDOW, repeated_tail
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.reasoning import Reasoning
from bitcal_integrations.decode.shown import Shown
from bitcal_integrations.errors import EngineError
from bitcal_integrations.grading import as_parser
from bitcal_integrations.types import Answer, Finish, Generation, Request, Step


class Row:
    """State of one request; `push` adds a token and may set `finish`."""

    def __init__(self, net: Net, request: Request) -> None:
        encoded = net.encode(request)
        self.request = request
        self.ids = list(encoded.ids)
        self.prompt_tokens = len(encoded.ids)
        room = request.max_new_tokens
        if net.context is not None:
            room = min(room, net.context - self.prompt_tokens)
        self.limit = room
        seen = 1 if net.encoder_decoder else self.prompt_tokens  # what a processor sees as prompt
        self._constraint = net.constraint(request, encoded, room)
        self.choose = Chooser(net, request, seen, self._constraint)
        self.steps: list[Step] = []
        self.raw = ""
        self.finish: Finish | None = None
        self.error: Exception | None = None
        self.stop_string: str | None = None
        self._eos = net.eos
        self._spell = net.decode
        self._pieces = Detokenizer(net.decode, net.literal)
        self._unfinished: list[int] = []  # steps whose token is part of a character still to come
        self._reasoning = Reasoning(encoded.open_mark)
        self._shown = Shown(request.stop, self._reasoning)
        self._parse = as_parser(request.parser)
        self.watch = watcher_of(net, request, self._parse)
        self.states = states_of(net, request)
        self._telling: int | None = None  # tokens of a trial answer that are still to be taken over
        self._asked = 0  # characters before the answer that a trial gave

    @property
    def new_tokens(self) -> int:
        return len(self.steps)

    @property
    def open_mark(self) -> str | None:
        """The mark that would close the reasoning that is open."""
        return self._reasoning.closes(self.raw)

    @property
    def content_start(self) -> int:
        return self._reasoning.start or 0

    @property
    def output_ids(self) -> list[int]:
        return self.ids[self.prompt_tokens :]

    def push(
        self,
        token: int,
        numbers: tuple[float, float, float, float],
        top: tuple[tuple[int, float], ...] = (),
        forced: bool = False,
    ) -> Step:
        """Take one token with its log-probability, entropy, margin and logsumexp."""
        self.ids.append(token)
        start = len(self.raw)
        ended = token in self._eos
        self.raw += self._pieces.flush() if ended else self._pieces.push(token)
        last = ended or self.new_tokens + 1 >= self.limit
        if last and not ended:
            self.raw += self._pieces.flush()
        content = self._reasoning.update(self.raw)
        held = self._constraint
        forced = forced or (held is not None and held.took(token, self.raw, content))
        self._judge(start, ended, last, content)
        end = len(self.raw)
        self._share_character(start, end)
        text, reasoning = self._shown.release(self.raw, self.finish is not None)
        spelt = tuple(self._spell([other]) for other, _ in top)
        step = Step(
            token, text, min(start, end), end, *numbers, top=top, top_text=spelt,
            reasoning=reasoning, forced=forced,
        )  # fmt: skip
        self.steps.append(step)
        if self.states is not None:
            self.states.take()
        if self.watch is not None and self.finish is None and not self._unfinished:
            self.watch.note(self, start)
        return step

    def settle(self, telling: Telling) -> list[Step]:
        """End with a trial answer: its tokens become the row's own last ones."""
        steps = []
        self.states = None  # those of a trial answer are not read
        for at, word in enumerate(telling.words):
            if at == telling.closing:
                self._asked = len(self.raw)
            self._telling = len(telling.words) - at
            top = word.top[: self.request.top_logprobs]
            steps.append(self.push(word.token, word.numbers, top, forced=at < telling.closing))
        return steps

    def give_up(self) -> None:
        """End without an answer; text that was held back is not shown any more."""
        self.raw, self.finish = self.raw[: self._shown.upto], "hopeless"

    def _judge(self, start: int, ended: bool, last: bool, content: int | None) -> None:
        held = self._constraint
        if self._telling is not None:
            if self._telling == 1:
                self._cut_at_stop(self._asked)
                self.finish = "settled"
        elif self._cut_at_stop(start) or ended:
            self.finish = "stop"
        elif held is not None and held.binding:  # no half of it is an answer, and it ends by itself
            if held.complete or (last and held.accepting):
                self.finish = "stop"
        elif content is not None and self._answered(content, start):
            self.finish = "answer"
        elif self.request.loop_stop and self._loops():
            if held is not None and held.grammar.required:
                held.hurry()
            else:
                self.finish = "loop"
        if last and self.finish is None and self._telling is None:
            self.finish = "length"

    def _loops(self) -> bool:
        if len(self.steps) % EVERY != EVERY - 1:
            return False
        return bool(repeated_tail(self.ids[max(self.prompt_tokens, len(self.ids) - WINDOW) :]))

    def _cut_at_stop(self, start: int) -> bool:
        """Cut the text before the first stop string that the new piece completes."""
        found = self._shown.stop_in(self.raw, start)
        if found is None:
            return False
        at, self.stop_string = found
        self.raw = self.raw[:at]
        return True

    def _answered(self, content: int, start: int) -> bool:
        if self._parse is None or start == len(self.raw):
            return False
        return self._parse(self.raw[content:], ended=False) is not None

    def _share_character(self, start: int, end: int) -> None:
        """Give the tokens that began a character the range of the token that completes it."""
        if end > start:
            for index in self._unfinished:
                self.steps[index] = dataclasses.replace(self.steps[index], start=start, end=end)
            self._unfinished.clear()
        elif self.finish is None:
            self._unfinished.append(len(self.steps))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """An error of this row's own parser or sampler ends this row and no other."""
        try:
            yield
        except BaseException as err:
            self.error, self.finish = own_error(err), "error"

    def cancel(self) -> None:
        if self.finish is None:
            self.raw += self._pieces.flush()
            self.finish = "cancelled"
            if self.watch is not None:
                self.watch.drop_trial()

    def generation(self) -> Generation:
        """What the row holds, as a Generation."""
        end = len(self.raw)
        steps = tuple(
            s if s.end <= end else dataclasses.replace(s, start=min(s.start, end), end=end)
            for s in self.steps
        )
        start, watch = self._reasoning.start, self.watch
        content = end if start is None else min(start, end)
        found = Generation(
            raw=self.raw,
            finish=self.finish or "cancelled",
            steps=steps,
            prompt_tokens=self.prompt_tokens,
            n_tokens=len(steps),
            content_start=content,
            reasoning=self._reasoning.text(self.raw),
            answer=self._answer(content),
            stop_string=self.stop_string,
            probe_tokens=watch.probe_tokens if watch else 0,
            stopped=watch.stopped(self.finish) if watch else None,
            checkpoints=tuple(watch.seen) if watch else (),
        )
        hidden = self.states.pooled(found) if self.states is not None else None
        return found if hidden is None else dataclasses.replace(found, hidden=hidden)

    def _answer(self, content: int) -> Answer | None:
        """The parsed answer; a text cut at its limit may hold half of one, which is none.

        A call asks for what the answer needs: it is none either.
        """
        held = self._constraint
        if self.finish == "hopeless":
            return None
        if self._parse is None and self.finish == "settled":
            span = said_after(self.raw, self._asked)
            return Answer(self.raw[slice(*span)], *span) if span else None
        if self._parse is None or (held is not None and held.holds_call(self.raw[content:])):
            return None
        whole = self.finish not in ("length", "cancelled")
        found = self._parse(self.raw[content:], ended=whole)
        if found is None:
            return None
        return Answer(found.text, found.start + content, found.end + content)


def own_error(err: BaseException) -> Exception:
    """What a caller's parser raised; an exit in there ends its request, not the process."""
    if isinstance(err, Exception):
        return err
    failure = EngineError(f"the parser of the request raised {err!r}")
    failure.__cause__ = err
    return failure

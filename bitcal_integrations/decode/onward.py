"""One text in several requests: cut at a number of tokens, and going on from there later.

A later request holds the prompt as the model saw it and the text so far, which is encoded anew; so
a text that goes on can differ a little from one that was never cut. It knows how to make the next
request and to join what comes; how many tokens each gets is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bitcal_integrations.decode._trial import Spelling
from bitcal_integrations.decode.prompt import encode, plain_text, render
from bitcal_integrations.decode.reasoning import Reasoning
from bitcal_integrations.grading import as_parser
from bitcal_integrations.types import Answer, Finish, Generation, Request, Step


class Onward:
    """A request's text so far; `open` while it has not come to its own end.

    `used` counts its new tokens, `limit` is the request's own max_new_tokens. `closing` is the text
    that asks for the answer of one that is cut for good.
    """

    def __init__(self, request: Request, tokenizer: Any, closing: str | None = None) -> None:
        self.request, self.limit = request, request.max_new_tokens
        self.raw, self.finish = "", ""
        self.used = 0
        self._closing, self._tokenizer = closing, tokenizer
        self._closing_tokens = 0
        self._ready = self._start = ""  # the closing text in its place; the prompt as it was seen
        encoded = encode(tokenizer, request)
        self.prompt_tokens, self._mark = len(encoded.ids), encoded.open_mark
        self._parse = as_parser(request.parser)
        self._steps: list[Step] = []
        self._stopped: Mapping[str, Any] | None = None
        self._stop_string: str | None = None
        self._hidden: Any = None  # of a text that came in one piece

    @property
    def open(self) -> bool:
        return not self.finish

    def further(self, tokens: int) -> Request:
        """The request for its next tokens, at most so many."""
        if not self.raw:
            return replace(self.request, max_new_tokens=tokens)
        self._start = self._start or _as_seen(self._tokenizer, self.request)
        return replace(
            self.request, prompt=self._start + self.raw, chat=False, max_new_tokens=tokens,
            parser=self._from_here() if self._parse else None,
        )  # fmt: skip

    def _from_here(self) -> Any:
        """The parser of a piece, which sees what was said before it."""
        before = self.raw

        def parse(text: str, ended: bool = True) -> Answer | None:
            found = self._answer_in(before + text, ended)
            # Where it stands is found again in the whole text; the piece need only know of it.
            return Answer(found.text, 0, len(text)) if found else None

        return parse

    def take(self, generation: Generation, tokens: int) -> None:
        """What came of `further(tokens)`."""
        self._join(generation)
        cut = generation.finish == "length" and generation.n_tokens >= tokens
        if not cut or self.used >= self.limit:
            self.finish = generation.finish
            self._stop_string = generation.stop_string
        else:
            self.raw = self.raw.rstrip("\ufffd")  # half a character, which would be read as another
            self._end_at_stop()

    def _join(self, generation: Generation) -> None:
        self._hidden = None if self._steps else generation.hidden
        begin, lead = len(self.raw), self._lead(generation)
        at = begin + len(lead)
        self.raw += lead + generation.raw
        self.used += generation.n_tokens + generation.probe_tokens
        steps = [replace(s, start=s.start + at, end=s.end + at) for s in generation.steps]
        if lead:  # the first token's own; one that is nothing else shared the next one's characters
            alone = self._decode([steps[0].token_id])
            steps[0] = replace(steps[0], start=begin, end=at + len(alone))
        self._steps += steps

    def _lead(self, generation: Generation) -> str:
        """The space before a piece: some tokenizers leave it out where a text begins."""
        if not self._steps or not generation.steps:
            return ""
        before, first = [s.token_id for s in self._steps[-4:]], generation.steps[0].token_id
        said = self._decode([*before, first])[len(self._decode(before)) :]
        alone = self._decode([first])
        return said.removesuffix(alone) if said.endswith(alone) else ""

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _end_at_stop(self) -> None:
        """A stop string may lie half in one piece and half in the next."""
        hits = [(at, s) for s in self.request.stop if (at := self.raw.find(s)) >= 0]
        if hits:
            at, self._stop_string = min(hits)
            self.raw, self.finish = self.raw[:at], "stop"

    def closing_cost(self) -> int:
        """The tokens of the closing text where the text is now."""
        text = self._closing or ""
        if self.raw and not self.raw.endswith("\n"):
            text = "\n" + text
        reasoning = Reasoning(self._mark)
        reasoning.update(self.raw)
        if mark := reasoning.closes(self.raw):
            text = f"{mark}\n\n{self._closing}"
        self._ready = text
        self._closing_tokens = len(_spelling(self._tokenizer)(text))
        return self._closing_tokens

    def closing_request(self, tokens: int) -> Request:
        """The request for a short answer behind the closing text."""
        self.closing_cost()
        self.raw += self._ready
        self.used += self._closing_tokens
        stop = (*self.request.stop, "\n") if self._parse is None else self.request.stop
        return replace(self.further(tokens), temperature=0.0, top_p=None, stop=stop)

    def close(self, generation: Generation, stopped: Mapping[str, Any]) -> None:
        """What came of `closing_request`: the text ends with it, as one that was cut."""
        self._join(generation)
        self.finish, self._stopped = "length", stopped

    def cut(self, stopped: Mapping[str, Any]) -> None:
        """It ends here, unfinished."""
        self.finish, self._stopped = "length", stopped

    def generation(self) -> Generation:
        """All pieces as one."""
        finish: Finish = self.finish or "length"  # type: ignore[assignment]
        content, reasoning = self._content(self.raw)
        end = len(self.raw)
        steps = (replace(s, start=min(s.start, end), end=min(s.end, end)) for s in self._steps)
        asked = bool(self._stopped and self._closing_tokens)
        answer = self._answer_in(self.raw, asked or finish not in ("length", "cancelled"))
        return Generation(
            self.raw, finish, tuple(steps), self.prompt_tokens, self.used, content, reasoning,
            answer, self._stop_string, stopped=self._stopped, hidden=self._hidden,
        )  # fmt: skip

    def _answer_in(self, raw: str, ended: bool) -> Answer | None:
        content = self._content(raw)[0]
        found = self._parse(raw[content:], ended=ended) if self._parse else None
        return Answer(found.text, found.start + content, found.end + content) if found else None

    def _content(self, raw: str) -> tuple[int, str | None]:
        """Where the content begins, and the reasoning before it."""
        reasoning = Reasoning(self._mark)
        start = reasoning.update(raw)
        return (len(raw) if start is None else min(start, len(raw))), reasoning.text(raw)


def _as_seen(tokenizer: Any, request: Request) -> str:
    """The prompt as the text that the model was given."""
    if request.chat is not False and getattr(tokenizer, "chat_template", None):
        return render(tokenizer, request.prompt, request.chat_template_kwargs)[0]
    return request.prompt if isinstance(request.prompt, str) else plain_text(request.prompt)


def _spelling(tokenizer: Any) -> Spelling:
    def encoded(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return Spelling(encoded, tokenizer.decode)

"""Holds one row's text to its grammar, so that the text is complete within its tokens.

The library masks the tokens that the grammar forbids; of the others a token is taken only if what
it leaves open can still be closed with the tokens that are left, so the shortest end is reached
in time even by a model that would never end. It knows nothing of prompts or batches, and the
confidence of a token is measured elsewhere, on the logits before any mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from bitcal_integrations.decode import _grammar_walk as walk
from bitcal_integrations.decode._grammar_nodes import Byte, Lit, Mark
from bitcal_integrations.decode.grammar import Grammar, Grammars
from bitcal_integrations.errors import BadRequest, EngineError

if TYPE_CHECKING:
    from llguidance import LLMatcher

TRIES = 4  # choices of the model that may be too long before the shortest end is taken
_BEGINNING = 64  # characters in which a call without a mark must begin
Pick = Callable[[torch.Tensor], int]


class Constraint:
    """Where one row stands in its grammar. `choose` takes a token, `took` is told which it was.

    `limit` is the row's budget of tokens, `open_mark` the reasoning mark that its prompt leaves
    open. Before the grammar rules, a text may hold reasoning, or, where tools are only offered,
    anything else.
    """

    def __init__(
        self, grammar: Grammar, grammars: Grammars, limit: int, close_mark: str | None
    ) -> None:
        self.grammar, self._left = grammar, limit
        self._vocabulary, self._eos = grammar.vocabulary, grammars.eos
        self._thinking = grammars.thinking
        self._closing = grammars.ids_of(close_mark) if close_mark else []
        self._hurried = False
        self._state: walk.State | None = None
        self._matcher: LLMatcher | None = None
        self._tail = ""  # of a text without a call, where one could begin
        self._searched = 0
        self._fresh, self._single = True, False
        if grammar.required:
            self._check_room()
            if not close_mark:
                self._enter("")

    def _check_room(self) -> None:
        needed = self.grammar.tokens + len(self._closing)
        if needed > self._left:
            what = "call of the tools" if self.grammar.form else "text that follows the schema"
            raise BadRequest(
                f"the shortest {what} has {needed:.0f} tokens, and there is room for {self._left}",
                f"Raise max_new_tokens to at least {needed:.0f}, or shorten the prompt.",
            )

    @property
    def binding(self) -> bool:
        """Whether the grammar rules the text now."""
        return self._state is not None

    @property
    def idle(self) -> bool:
        """Whether the model may say what it likes."""
        return not self.binding and not self.grammar.required and not self._tight

    @property
    def _tight(self) -> bool:
        """Whether a call that is opened with this token could not be closed."""
        return self._left - 1 < self.grammar.tokens

    @property
    def complete(self) -> bool:
        """Whether nothing can follow."""
        return self.accepting and len(self._state or ()) == 1

    @property
    def accepting(self) -> bool:
        """Whether the text may end here."""
        return self._state is not None and None in self._state

    def holds_call(self, content: str) -> bool:
        form = self.grammar.form
        return form is not None and form.begins.search(content) is not None

    # ---- before a token ------------------------------------------------------------------------

    def choose(self, logits: torch.Tensor, pick: Pick) -> int:
        """The next token; `pick` takes one by logits of which the forbidden are -inf."""
        if self._matcher is not None:
            return self._choose_bound(logits, pick)
        if self.grammar.required:
            return self._choose_reasoning(logits, pick)
        return self._choose_free(logits, pick)

    def _choose_bound(self, logits: torch.Tensor, pick: Pick) -> int:
        self._single = False
        assert self._matcher is not None
        if self._fresh and self._thinks(best := int(logits.argmax())):
            return best
        mask = torch.from_numpy(self._vocabulary.allowed(self._matcher))[: len(logits)]
        self._single = int(mask.sum()) == 1
        masked = logits.masked_fill(~mask.to(logits.device), -torch.inf)
        for _ in range(TRIES):
            token = pick(masked)
            if token in self._eos or self._price(token) <= self._left - 1:
                return token
            masked[token] = -torch.inf
            if not torch.isfinite(masked).any():
                break
        return self._shortest(logits)

    def _thinks(self, token: int) -> bool:
        """Whether a first token begins reasoning, and there is room for it."""
        close = self._thinking.get(token)
        return close is not None and self._left - 1 >= self.grammar.tokens + len(close)

    def _price(self, token: int) -> float:
        """The fewest tokens to an end after this one."""
        return self.grammar.costs.cheapest(self._behind(token))[0]

    def _shortest(self, logits: torch.Tensor) -> int:
        """The likeliest of the tokens that begin the shortest end."""
        assert self._state is not None
        assert self._matcher is not None
        tokens: set[int] = set()
        for node in self.grammar.costs.cheapest(self._state)[1]:
            if isinstance(node, Lit):
                tokens.update((self._vocabulary.spell(node.data) or [])[:1])
            elif isinstance(node, Byte):
                tokens.update(self._vocabulary.single(node.allowed))
            elif isinstance(node, Mark):
                tokens.add(node.token)
        # Of a forced text the mask has one spelling only, which may not be the shortest.
        known = [token for token in tokens if self._matcher.validate_tokens([token])]
        if not known:
            raise EngineError("the grammar leaves no way to its end")
        return max(known, key=lambda token: float(logits[token]))

    def _choose_reasoning(self, logits: torch.Tensor, pick: Pick) -> int:
        """A token of the reasoning, which must end while there is room for the text."""
        if self._left - 1 < self.grammar.tokens + len(self._closing):
            self.hurry()
        if self._hurried and self._closing:
            return self._closing[0]
        return pick(_without(logits, self._eos))

    def hurry(self) -> None:
        """End the reasoning now."""
        self._hurried = True

    def _choose_free(self, logits: torch.Tensor, pick: Pick) -> int:
        """A token of a text without a call; no call is opened that could not be closed."""
        token = pick(logits)
        for _ in range(_BEGINNING if self._tight else 0):
            if not self._opens(token):
                break
            logits = _without(logits, [token])
            token = pick(logits)
        return token

    def _opens(self, token: int) -> bool:
        piece = self._vocabulary.bytes_of(token).decode(errors="replace")
        return self.holds_call(self._tail + piece) and not self.holds_call(self._tail)

    # ---- after a token -------------------------------------------------------------------------

    def took(self, token: int, raw: str, content: int | None) -> bool:
        """Go on by a token, after which the text is `raw`; whether no other text could come."""
        self._left -= 1
        fresh, self._fresh = self._fresh, False
        if fresh and self.binding and token in self._thinking:
            self._closing = self._thinking[token]
            self._state = self._matcher = None
            return False
        if self._state is not None:
            return self._advance(token)
        said = self._hurried and self._closing[:1] == [token]
        if said:
            self._closing = self._closing[1:]
        if content is not None:
            self._look(raw[content:])
        return said

    def _advance(self, token: int) -> bool:
        if token in self._eos and self.accepting:
            return False
        assert self._state is not None
        assert self._matcher is not None
        forced = self._single or self._is_forced(token)
        self._state = self._behind(token)
        if not self._state or not self._matcher.consume_token(token):
            raise EngineError(f"the grammar does not take token {token}")
        return forced

    def _is_forced(self, token: int) -> bool:
        state = self._state or frozenset()
        if token in self._vocabulary.special:
            return walk.only_mark(state, token)
        for byte in self._vocabulary.bytes_of(token):
            if not walk.says_nothing(state, byte):
                return False
            state = walk.after(state, bytes((byte,)))
        return True

    def _behind(self, token: int) -> walk.State:
        assert self._state is not None
        if token in self._vocabulary.special:
            return walk.after_mark(self._state, token)
        return walk.after(self._state, self._vocabulary.bytes_of(token))

    def _look(self, content: str) -> None:
        """Enter the grammar where the reasoning has ended, or a call has begun."""
        if self.grammar.required:
            self._enter(content)
            return
        form = self.grammar.form
        assert form is not None
        # Without a mark only the whole content can be a call, and it begins at once.
        where = content[self._searched :] if form.opens else content[:_BEGINNING]
        call = form.begins.search(where)
        if call and len(content) - self._searched <= len(where):
            self._enter(where[call.start("call") :])
            self._searched = len(content)
        else:
            self._searched = max(self._searched, len(content) - len(form.opens))
        self._tail = where[1 - len(form.opens) :] if form.opens else where

    def _enter(self, said: str) -> None:
        """Begin the grammar, of which the last token may have said some text already.

        Text that does not fit leaves a free text free: it only looked like a call.
        """
        state = walk.after(self.grammar.start, said.encode())
        ids = self._vocabulary.spell(said.encode())
        matcher = self.grammar.matcher()
        if state and ids is not None and matcher.consume_tokens(ids):
            self._state, self._matcher = state, matcher
        elif self.grammar.required:
            raise EngineError(f"the text behind the reasoning begins with {said!r:.40}")


def _without(logits: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    masked = logits.clone()
    masked[tokens] = -torch.inf
    return masked

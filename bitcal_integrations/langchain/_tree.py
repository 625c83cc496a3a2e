"""Which run asked which, and the Records of the answers beneath each run.

Pure bookkeeping behind the callback handlers, safe from any thread. It knows run ids and Records,
no framework's types. Where a run chose among several answers, only the chosen one stays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from bitcal_integrations.types import Record

RunId = Hashable


@dataclass(frozen=True)
class Told:
    """An answer and the runs it was given in, from its own up to the root."""

    record: Record
    name: str
    path: tuple[RunId, ...]


class RunTree:
    """The open runs, and the answers of the last `keep` roots, in the order they came.

    >>> from bitcal_integrations.chains.records import unknown_record
    >>> tree = RunTree()
    >>> tree.begin("chain", None), tree.begin("draft", "chain"), tree.begin("strong", "chain")
    (None, None, None)
    >>> for name in ("draft", "strong"):
    ...     _ = tree.tell(name, unknown_record(f"the {name}'s words"))
    >>> [told.record.text for told in tree.answers("chain")]
    ["the draft's words", "the strong's words"]
    >>> _ = tree.choose("chain", unknown_record("the strong's words"))
    >>> [told.record.text for told in tree.answers("chain")]
    ["the strong's words"]
    """

    def __init__(self, keep: int = 1000) -> None:
        self._parent: dict[RunId, RunId | None] = {}
        self._asked: dict[RunId, tuple[Any, str]] = {}
        self._told: OrderedDict[RunId, list[Told]] = OrderedDict()
        self._keep = keep
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            told = OrderedDict((root, list(answers)) for root, answers in self._told.items())
            return {
                "_parent": dict(self._parent), "_asked": dict(self._asked), "_told": told,
                "_keep": self._keep,
            }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def begin(self, run: RunId, parent: RunId | None, prompt: Any = "", name: str = "") -> None:
        """A run has started beneath `parent`, or as a root where nothing is known of that one."""
        with self._lock:
            self._parent[run] = parent
            self._asked[run] = (prompt, name)

    def end(self, run: RunId) -> None:
        """A run is over, well or not; the answers beneath it stay."""
        with self._lock:
            self._parent.pop(run, None)
            self._asked.pop(run, None)

    def asked(self, run: RunId) -> tuple[Any, str]:
        """The prompt and the name that a run began with."""
        return self._asked.get(run, ("", ""))

    def tell(self, run: RunId, record: Record) -> list[Told]:
        """A run has given an answer; all answers of its root so far, in order."""
        with self._lock:
            path = self._path(run)
            told = self._told.setdefault(path[-1], [])
            told.append(Told(record, self.asked(run)[1], path))
            self._told.move_to_end(path[-1])
            while len(self._told) > self._keep:
                self._told.popitem(last=False)
            return list(told)

    def choose(self, run: RunId, record: Record) -> list[Told]:
        """A run has chosen: of the answers beneath it, this one stays."""
        with self._lock:
            root = self._path(run)[-1]
            told = self._told.get(root, [])
            self._told[root] = [t for t in told if run not in t.path]
        same = (record.text, record.model)
        for known in reversed([t.record for t in told if run in t.path]):
            if (known.text, known.model) == same:  # it knows its prompt and its tokens
                record = replace(known, confidence=record.confidence, decision=record.decision)
                break
        return self.tell(run, record)

    def answers(self, root: RunId | None = None) -> list[Told]:
        """The answers of this root, or of the one that was told something last."""
        with self._lock:
            if root is None:
                root = next(reversed(self._told), None)
            return list(self._told.get(root, ()))

    def all_answers(self) -> list[Told]:
        """Every answer that is kept."""
        with self._lock:
            return [told for answers in self._told.values() for told in answers]

    def _path(self, run: RunId) -> tuple[RunId, ...]:
        path = [run]
        while (parent := self._parent.get(path[-1])) is not None and parent in self._parent:
            path.append(parent)
        return tuple(path)

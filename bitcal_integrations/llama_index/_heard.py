"""What the handlers have heard: Records, and to which queries they belong.

Knows ids and Records, none of LlamaIndex's events. Bounded: the oldest query is forgotten first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Record

Told = tuple[str, Record]  # who answered, and what
SPANS = 64  # links kept for each query that is kept


class Heard:
    """The answers of the queries heard last, and the links from a call up to its queries."""

    def __init__(self, sink: Callable[[Record], None] | None, keep: int, **options: Any) -> None:
        if sink is not None and not callable(sink):
            raise BadRequest(f"a sink is a callable that takes a Record, not {sink!r:.80}")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise BadRequest(f"keep={keep!r:.80} is not allowed: a whole number of at least 1")
        Trail(**options)  # refuses what is not allowed
        self._sink, self._keep, self._options = sink, keep, options
        self._parents: OrderedDict[str, str | None] = OrderedDict()
        self._queries: OrderedDict[str, list[Told]] = OrderedDict()
        self._told_inside: OrderedDict[str, None] = OrderedDict()
        self._all: deque[Record] = deque(maxlen=keep)
        self._last: str | None = None
        self._lock = threading.Lock()

    def link(self, child: str, parent: str | None) -> None:
        """`child` runs inside `parent`."""
        with self._lock:
            self._parents[child] = parent
            while len(self._parents) > SPANS * self._keep:
                self._parents.popitem(last=False)

    def begin(self, query: str) -> None:
        """A query begins: what runs inside it belongs to it."""
        with self._lock:
            self._queries[query] = []
            while len(self._queries) > self._keep:
                self._queries.popitem(last=False)

    def above(self, at: str | None) -> list[str]:
        """`at` and what it runs in, the innermost first."""
        with self._lock:
            found: list[str] = []
            while at is not None and at not in found:
                found.append(at)
                at = self._parents.get(at)
            return found

    def told(self, at: str | None) -> bool:
        """Whether an answer was given inside `at`: a call that passes another's answer on."""
        with self._lock:
            return at in self._told_inside

    def tell(self, record: Record, at: str | None, name: str = "") -> Trail:
        """An answer was given at `at`: the steps so far of the outermost query it belongs to."""
        inside = self.above(at)
        with self._lock:
            self._told_inside.update((place, None) for place in inside[1:])
            while len(self._told_inside) > SPANS * self._keep:
                self._told_inside.popitem(last=False)
            queries = [place for place in inside if place in self._queries]
            for query in queries:
                self._queries[query].append((name, record))
            self._all.append(record)
            self._last = queries[-1] if queries else None
            told = list(self._queries[queries[-1]]) if queries else [(name, record)]
        if self._sink is not None:
            self._sink(record)
        return self._trail(told)

    @property
    def records(self) -> list[Record]:
        """The Records heard last, in the order they came."""
        with self._lock:
            return list(self._all)

    def trail(self, query: str | None = None) -> Trail:
        """The steps of a query, or of the one that was answered last."""
        with self._lock:
            query = self._last if query is None else query
            alone = [("", record) for record in list(self._all)[-1:]]
            told = list(self._queries.get(query, [])) if query is not None else alone
        return self._trail(told)

    def _trail(self, told: Sequence[Told]) -> Trail:
        trail = Trail(**self._options)
        for name, record in told:
            trail.add(record, name)
        return trail


class Hearing:
    """What a handler tells of what it has heard."""

    _heard: Heard

    @property
    def records(self) -> list[Record]:
        """The Records heard last, in the order they came."""
        return self._heard.records

    @property
    def trail(self) -> Trail:
        """The answers of the query that was answered last."""
        return self._heard.trail()

    @property
    def confidence(self) -> float | None:
        """That query's aggregated confidence; None while any of its answers is unknown."""
        return self.trail.value

    def trail_of(self, query: str) -> Trail:
        """The answers of the query whose event or span has this id."""
        return self._heard.trail(query)

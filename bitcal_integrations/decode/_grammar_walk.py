"""Where a text stands in a grammar, and the fewest tokens that would complete it.

A state is the set of what may still follow: stacks of nodes with a byte, a text or a mark on top;
None is the empty stack: the text may end. It is read from the same nodes as the library's masks, so
that the library answers which tokens may come, and this which of them can be closed in time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeGuard

from bitcal_integrations.decode._grammar_nodes import (
    Alt,
    Byte,
    Leaf,
    Lit,
    Mark,
    Node,
    Ref,
    Repeat,
    Seq,
)

Stack: TypeAlias = "tuple[Node, Any] | None"
State: TypeAlias = frozenset[Stack]
NEVER = float("inf")


class Speller(Protocol):
    def count(self, data: bytes) -> float:
        """The fewest tokens that spell these bytes."""


def start(root: Node) -> State:
    return _opened([(root, None)])


def after(state: State, data: bytes) -> State:
    """The state behind these bytes; empty if they do not fit."""
    for byte in data:
        left: list[Stack] = []
        for stack in state:
            if stack is None:
                continue
            node, rest = stack
            if isinstance(node, Lit):
                if node.data[0] == byte:
                    left.append((Lit(node.data[1:]), rest))
            elif isinstance(node, Byte) and byte in node.allowed:
                left.append(rest)
        state = _opened(left)
    return state


def after_mark(state: State, token: int) -> State:
    """The state behind a special token."""
    return _opened(s[1] for s in state if s and s[0] == Mark(token))


def says_nothing(state: State, byte: int) -> bool:
    """Whether this byte, which fits, is the only one that can, white space apart."""
    said = bytes((byte,))
    if any(stack and _is_blank(stack[0]) and stack[0].data[:1] == said for stack in state):
        return True
    tops = [stack[0] if stack else None for stack in state]
    return all(
        (isinstance(top, Lit) and (top.data[:1] == said or _is_blank(top)))
        or (isinstance(top, Byte) and top.allowed == {byte})
        for top in tops
    )


def only_mark(state: State, token: int) -> bool:
    """Whether this special token is all that can come, white space apart."""
    return all(stack and (stack[0] == Mark(token) or _is_blank(stack[0])) for stack in state)


def _is_blank(node: Node) -> TypeGuard[Lit]:
    """White space between lexemes; inside a text it is part of a longer one."""
    return isinstance(node, Lit) and node.data.isspace()


def _opened(stacks: Iterable[Stack]) -> State:
    """What these stacks stand for: stacks with bytes or a mark on top, or None."""
    found: set[Stack] = set()
    todo, seen = list(stacks), set()
    while todo:
        stack = todo.pop()
        if stack is None:
            found.add(None)
            continue
        node, rest = stack
        if isinstance(node, (Byte, Mark)) or (isinstance(node, Lit) and node.data):
            found.add(stack)
        elif not isinstance(node, Ref) or stack not in seen:  # a circle adds nothing
            seen.add(stack)
            todo += _parts(node, rest)
    return frozenset(found)


def _parts(node: Node, rest: Stack) -> Iterable[Stack]:
    """The stacks that a node before `rest` stands for, one level down."""
    if isinstance(node, Seq):
        for part in reversed(node.parts):
            rest = (part, rest)
        return (rest,)
    if isinstance(node, Alt):
        return [(choice, rest) for choice in node.choices]
    if isinstance(node, Repeat):
        again = Repeat(node.body, max(node.least - 1, 0), node.most - 1)
        more = [(node.body, (again, rest))] if node.most > 0 else []
        return [*more, rest] if node.least == 0 else more
    if isinstance(node, (Leaf, Ref)):
        return ((_inner(node), rest),)
    return (rest,)  # a text that is used up


def _inner(node: Leaf | Ref) -> Node:
    inner = node.body if isinstance(node, Leaf) else node.target
    assert inner is not None, "a reference was never filled in"
    return inner


class Costs:
    """The fewest tokens of nodes and states, for one grammar and one way of spelling."""

    def __init__(self, root: Node, speller: Speller) -> None:
        self._count = lru_cache(maxsize=4096)(speller.count)
        self._known: dict[int, float] = {}
        nodes = _reachable(root)
        self._alive = nodes  # ids are keys: their nodes must not be collected
        better = True
        while better:  # in circles the first round may not see the cheapest way
            better = sum(map(self._better, nodes)) > 0

    def _better(self, node: Node) -> bool:
        """Whether the node is cheaper than it was known to be, from what its parts cost now."""
        old, new = self._known.get(id(node), NEVER), self._measure(node)
        self._known[id(node)] = min(old, new)
        return new < old

    def _measure(self, node: Node) -> float:
        if isinstance(node, Seq):
            return sum(map(self.of, node.parts))
        if isinstance(node, Alt):
            return min(map(self.of, node.choices))
        if isinstance(node, (Leaf, Ref)):
            return self.of(_inner(node))
        if isinstance(node, Byte):
            return min(self._count(bytes((b,))) for b in node.allowed)
        return self.of(node)

    def of(self, node: Node) -> float:
        if isinstance(node, Lit):
            return self._count(node.data)
        if isinstance(node, Mark):
            return 1
        if isinstance(node, Repeat):
            return node.least * self.of(node.body) if node.least else 0
        return self._known.get(id(node), NEVER)

    def stack(self, stack: Stack) -> float:
        total: float = 0
        while stack is not None:
            total += self.of(stack[0])
            stack = stack[1]
        return total

    def cheapest(self, state: State) -> tuple[float, list[Node]]:
        """The fewest tokens to an end, and what may be on top on the way there."""
        prices = [(self.stack(stack), stack) for stack in state]
        least = min((price for price, _ in prices), default=NEVER)
        return least, [stack[0] for price, stack in prices if price == least and stack]


def _reachable(root: Node) -> list[Node]:
    """Every compound node, the deepest first where there is no circle."""
    seen: dict[int, Node] = {}
    order: list[Node] = []

    def visit(node: Node) -> None:
        if id(node) in seen:
            return
        seen[id(node)] = node
        for child in _children(node):
            visit(child)
        order.append(node)

    visit(root)
    return order


def _children(node: Node) -> Iterable[Node]:
    if isinstance(node, Seq):
        return node.parts
    if isinstance(node, Alt):
        return node.choices
    if isinstance(node, Repeat):
        return (node.body,)
    if isinstance(node, (Leaf, Ref)):
        return (_inner(node),)
    return ()

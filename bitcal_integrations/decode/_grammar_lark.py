"""A grammar's nodes as the text of a Lark grammar, as llguidance reads it."""

from __future__ import annotations

from bitcal_integrations.decode._grammar_nodes import (
    Alt,
    Leaf,
    Mark,
    Node,
    Ref,
    Repeat,
    Seq,
)


def to_lark(root: Node) -> str:
    r"""Rules for what has structure, terminals for the leaves.

    >>> from bitcal_integrations.decode._grammar_nodes import lit
    >>> print(to_lark(Seq((lit("["), Repeat(lit("1"), 0, 1)))))
    start: r0
    r0: T0 r1
    T0: /\[/
    r1: T1{0,1}
    T1: /1/
    """
    writer = _Writer()
    first = writer.name(root)
    return "\n".join([f"start: {first}", *(line for line in writer.lines if line)])


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names: dict[int, str] = {}
        self._terminals: dict[str, str] = {}
        self._rules = 0

    def name(self, node: Node) -> str:
        """The node's name, under which its line is written once."""
        if isinstance(node, Mark):
            return f"<[{node.token}]>"
        if isinstance(node, Leaf):
            return self._terminal(node.regex)
        if id(node) not in self._names:
            self._names[id(node)] = f"r{self._rules}"
            self._rules += 1
            place = len(self.lines)
            self.lines.append("")
            self.lines[place] = f"{self._names[id(node)]}: {self._body(node)}"
        return self._names[id(node)]

    def _terminal(self, regex: str) -> str:
        if regex not in self._terminals:
            self._terminals[regex] = f"T{len(self._terminals)}"
            self.lines.append(f"{self._terminals[regex]}: /{regex}/")
        return self._terminals[regex]

    def _body(self, node: Node) -> str:
        if isinstance(node, Seq):
            return " ".join(map(self.name, node.parts)) or '""'
        if isinstance(node, Alt):
            return " | ".join(map(self.name, node.choices))
        if isinstance(node, Repeat):
            return f"{self.name(node.body)}{{{node.least},{node.most}}}"
        assert isinstance(node, Ref), f"{type(node).__name__} must stand in a leaf"
        assert node.target is not None, "a reference was never filled in"
        return self.name(node.target)

"""HTML pieces that escape what they are given: pages, tables, lists of facts, folded parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import TypeAlias

from bitcal_integrations.report._style import CSS

# Control characters and lone surrogates, which no HTML file may hold.
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

Cell: TypeAlias = "str | tuple[str, str]"  # a text, or a text with a small one beneath it


def table(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], says: str, stack: bool = False
) -> str:
    """A table whose first column names the row; `stack` makes each row a card on a phone.

    The roles are spelled out, because a row that is styled as a card is no table row to a screen
    reader without them.
    """
    columns = "".join(f'<th scope="col" role="columnheader">{escape(h)}</th>' for h in head)
    body = "".join(_row(head, row) for row in rows)
    kind = ' class="stack"' if stack else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(says)}">'
        f'<table{kind} role="table" aria-label="{escape(says)}">'
        f'<thead role="rowgroup"><tr role="row">{columns}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _row(head: Sequence[str], row: Sequence[Cell]) -> str:
    first, *others = row
    cells = f'<th scope="row" role="rowheader">{_cell(first)}</th>'
    for name, cell in zip(head[1:], others, strict=True):
        cells += f'<td role="cell" data-label="{escape(name)}"><span>{_cell(cell)}</span></td>'
    return f'<tr role="row">{cells}</tr>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    text, small = cell
    return escape(text) + (f"<small>{escape(small)}</small>" if small else "")


def facts(pairs: Sequence[tuple[str, Cell]], kind: str = "facts") -> str:
    """Names with their values."""
    inside = "".join(f"<dt>{escape(k)}</dt><dd>{_cell(v)}</dd>" for k, v in pairs)
    return f'<dl class="{kind}">{inside}</dl>'


def tiles(pairs: Sequence[tuple[str, Cell]]) -> str:
    """A few numbers that stand out."""
    inside = "".join(f"<div><dt>{escape(k)}</dt><dd>{_cell(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="tiles">{inside}</dl>'


def folded(summary: str, inside: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(items: Sequence[str], kind: str = "") -> str:
    inside = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<ul class="{kind}">{inside}</ul>' if kind else f"<ul>{inside}</ul>"


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def document(title: str, intro: str, sections: Sequence[str], footer: str) -> str:
    """A whole page of sections, of which empty ones are left out."""
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{paragraph(intro)}</header>\n"
        f"<main>{''.join(part + chr(10) for part in sections if part)}</main>\n"
        f"<footer>{paragraph(footer)}</footer>\n</body>\n</html>\n"
    )
    return _UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", page)

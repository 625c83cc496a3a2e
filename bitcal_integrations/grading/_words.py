"""Texts in the form in which they are compared: words as SQuAD does, numbers as they are.

SQuAD's way drops every mark, which makes 15 of "1.5" and C of "C++". Here a mark stays where it
belongs to a number or to such a name. It knows no language but the English articles.
"""

from __future__ import annotations

import re

_DASHES = re.compile("[−–—]")
_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{2,3})*,\d{3}(?!\w|,\d)")
_GROUPED = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'’](?=\d{3}(?!\d))")
_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_AROUND = re.compile(r"(?<=\d)\s*([-+*/^×÷=<>])\s*(?=\d)")
_MARK = re.compile(
    r"(?<=\d)[^\w\s,](?=\d)"  # 1.5, 12:30, 10-12, 1/2
    r"|(?<!\w)-(?=[$€£¥]?\.?\d)"  # -7, -$5
    r"|(?<=\de)-(?=\d)"  # 1e-5
    r"|(?<=\w)[+#]+"  # C++, F#, 18+
    r"|(?<=\b[a-z])-(?!\w)|(?<=\b[a-z]{2})-(?!\w)"  # the blood groups o- and ab-
)
_OTHER = re.compile(r"[^\w\s]")
_ARTICLE = re.compile(r"(?<![\w+#-])(?:a|an|the)(?![\w+#-])")


def normalise(text: str) -> str:
    """Lower case without articles, extra space, and marks that belong to no number.

    >>> normalise("The  Eiffel Tower!"), normalise("-1,200.5 km"), normalise("C++")
    ('eiffel tower', '-1200.5 km', 'c++')
    """
    text = _GROUPED.sub("", _DASHES.sub("-", text.lower()))
    text = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    text = _AROUND.sub(r"\1", _POINT.sub("0.", text))
    text = re.sub(r"(?<=\d),(?=\d)", " ", text)  # a list, or a comma for the point: not one number
    kept, at = [], 0
    for mark in _MARK.finditer(text):
        kept += [_OTHER.sub("", text[at : mark.start()]), mark.group()]
        at = mark.end()
    text = "".join([*kept, _OTHER.sub("", text[at:])])
    return " ".join(_ARTICLE.sub(" ", text).split())

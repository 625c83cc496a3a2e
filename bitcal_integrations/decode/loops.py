"""Detects a verbatim loop: the end of the text repeats one block of tokens over and over.

It compares token ids only. Lists, tables and rulers repeat too, so a loop must fill both a number
of repeats and a number of tokens; the rate of false stops is measured in tests on real texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_BLOCK = 64
REPEATS = 6
TOKENS = 96
EVERY = 8
WINDOW = LONGEST_BLOCK * (REPEATS + 1)


def repeated_tail(tokens: Sequence[int]) -> tuple[int, int] | None:
    """(block length, repeats) of the loop that the tokens end in, or None.

    >>> repeated_tail([1, 2] + [7, 8, 9] * 40)
    (3, 40)
    >>> repeated_tail(list(range(200))) is None
    True
    """
    tail = np.asarray(tokens[-WINDOW:])
    for block in range(1, min(LONGEST_BLOCK, len(tail) // REPEATS) + 1):
        if tail[-1] != tail[-1 - block]:
            continue
        unequal = np.flatnonzero(tail[block:] != tail[:-block])
        run = len(tail) - (int(unequal[-1]) + 1 if len(unequal) else 0)
        if run >= max(TOKENS, block * REPEATS):
            return block, run // block
    return None

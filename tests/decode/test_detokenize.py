"""Pieces add up to the whole, also for a tokenizer that drops the first space."""

from __future__ import annotations

import random

import pytest
from families import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models

from bitcal_integrations.decode.detokenize import Detokenizer


def pieces(decode, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(decode)
    return [*(detokenizer.push(i) for i in ids), detokenizer.flush()]


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_add_up(seed: int) -> None:
    tokenizer = tiny_tokenizer()
    rng = random.Random(seed)
    ids = [rng.randrange(4, 260) for _ in range(60)]
    assert "".join(pieces(tokenizer.decode, ids)) == tokenizer.decode(ids)


def test_a_decoder_that_strips_the_first_space() -> None:
    core = Tokenizer(models.BPE({"▁the": 0, "▁cat": 1, "s": 2}, [], unk_token="s"))
    core.decoder = decoders.Metaspace()
    ids = [0, 1, 2, 0]
    assert core.decode(ids) == "the cats the"
    assert pieces(core.decode, ids) == ["the", " cat", "s", " the", ""]

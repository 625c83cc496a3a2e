"""A name is a file, and only a file that is there."""

from __future__ import annotations

import pytest

from bitcal_integrations import registry
from bitcal_integrations.errors import UnknownName


def test_helpers_are_not_names() -> None:
    assert "_span" not in registry.names("signals")
    assert registry.resolve("signals", "mean_logprob").NEEDS == "generation"


@pytest.mark.parametrize("kind", ["nothing", "../signals", "errors", ""])
def test_an_unknown_kind(kind: str) -> None:
    with pytest.raises(UnknownName, match="no kind"):
        registry.names(kind)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'mean' is not one of the signals: .*mean_logprob"):
        registry.resolve("signals", "mean")

"""The built-in model, loaded once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bitcal_integrations import CalibratedModel, load


@pytest.fixture(scope="package")
def tiny() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint4") as model:
        yield model

"""A real PostgreSQL server that goes away and comes back while answers are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bitcal_integrations.monitor import Store, StoreError, feedback, watch
from bitcal_integrations.testing.toy import ToyModel

LONG = 60.0  # seconds; only a test that fails waits for it


def test_answers_go_on_while_the_server_is_gone(
    postgres: Any, told: Callable[[], list[str]]
) -> None:
    url, toy = postgres.new_url(), ToyModel({}, default=("yes", 0.5))
    with watch(toy, url, interval=0, max_queue=30) as watching:
        toy.ask("before")
        assert watching.flush(LONG)
        postgres.stop()
        try:
            asked = [toy.ask(str(i)).text for i in range(40)]
            assert asked == ["yes"] * 40
            with pytest.raises(StoreError, match="cannot be"):
                feedback("id", True, store=url)
            for _ in range(1000):
                if watching.report()["trouble"]:
                    break
                watching.flush(0.01)
        finally:
            postgres.start()
        assert watching.flush(LONG)
        report = watching.report()
        assert report["trouble"] is None
        assert report["written"] + report["dropped"] == 41
        assert watching.store.counts()["records"] == report["written"] >= 31
    messages = told()
    assert sum("cannot be written" in message for message in messages) == 1
    assert sum("is written again" in message for message in messages) == 1


def test_a_server_that_stays_away_holds_up_no_end(postgres: Any) -> None:
    url, toy = postgres.new_url(), ToyModel({}, default=("yes", 0.5))
    watching = watch(toy, url, interval=0)
    postgres.stop()
    try:
        toy.ask("lost")
        watching.close(timeout=0.2)
        assert watching.report()["dropped"] == 1
    finally:
        postgres.start()


def test_tables_of_others_are_left_alone(postgres: Any) -> None:
    import psycopg

    url = postgres.new_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE mine (x INTEGER)")
        connection.execute("INSERT INTO mine VALUES (7)")
    with pytest.raises(StoreError, match="no records of ours"):
        Store(url)
    with Store(url, create=True) as store:
        assert store.counts()["records"] == 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT x FROM mine").fetchone() == (7,)

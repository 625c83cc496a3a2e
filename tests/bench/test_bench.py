"""The benchmarks run and give rows of the right form; never a speed, which is the machine's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
import torch

from bitcal_integrations import bench
from bitcal_integrations.bench import _bed, _child, _loops, _rows, _scale
from bitcal_integrations.bench.tap import PRECISE, nothing
from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.registry import names

MEMORY = "bytes kept"  # of a model this small, less than a page: zero is a fair answer


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny matrices are slower on two busy threads than on one
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def smoke() -> tuple[list[bench.Row], list[tuple[int, int, str]]]:
    seen: list[tuple[int, int, str]] = []
    return bench.run(size="smoke", progress=lambda *news: seen.append(news)), seen


def test_every_benchmark_gives_rows(smoke) -> None:
    rows, _ = smoke
    assert {row.benchmark for row in rows} == set(names("bench"))
    assert names("bench") == ("concurrency", "kernels", "loading", "tap")
    assert len({(row.benchmark, row.setting) for row in rows}) == len(rows)


def test_every_pair_is_kept_and_is_a_ratio(smoke) -> None:
    for row in smoke[0]:
        assert len(row.ratios) == _scale.SMOKE.pairs
        assert row.low <= row.ratio <= row.high
        for ratio in row.ratios:
            assert math.isfinite(ratio)
            assert ratio > 0 or row.setting.startswith(MEMORY)


def test_each_target_of_the_issue_has_its_rows(smoke) -> None:
    targets = {(row.benchmark, row.target) for row in smoke[0] if row.target}
    assert targets >= {
        ("tap", "<= 1.05"),
        ("kernels", ">= 1.5"),
        ("kernels", ">= 1.0"),
        ("concurrency", ">= 3.0"),
        ("concurrency", ">= 1.3"),
    }
    assert {row.target for row in smoke[0] if row.benchmark == "loading"} == {None}


def test_progress_counts_up_to_the_end(smoke) -> None:
    done, totals, labels = zip(*smoke[1], strict=True)
    assert list(done) == list(range(len(done)))
    assert set(totals) == {done[-1]}
    assert labels[-1] == "done"


def test_the_table_has_a_line_per_row_and_names_the_machine(smoke) -> None:
    rows, _ = smoke
    machine, blank, *lines = bench.table(rows).splitlines()
    assert f"torch {torch.__version__}" in machine
    assert "cores" in machine
    assert "threads" in machine
    assert not blank
    assert len(lines) == len(rows) + 2
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_rows_are_json(smoke) -> None:
    (row, *_), _ = smoke
    data = json.loads(json.dumps(row.to_dict()))
    assert data["ratio"] == row.ratio
    assert data["ratios"] == list(row.ratios)


def test_median_spread_and_target() -> None:
    row = bench.Row("tap", "time", (1.3, 0.9, 1.04), "<= 1.05")
    assert (row.ratio, row.low, row.high, row.met) == (1.04, 0.9, 1.3, True)
    assert bench.Row("tap", "time", (1.06,), "<= 1.05").met is False
    assert bench.Row("tap", "time", (1.06,)).met is None
    assert "| 1.04 | 0.90 to 1.30 | 3 | <= 1.05 | yes |" in bench.table([row])
    with pytest.raises(ValueError, match="shorter"):
        _rows.ratios([1.0, 2.0], [1.0])


def test_the_default_sizes_measure_at_least_five_pairs() -> None:
    for scale in (_scale.CPU, _scale.GPU):
        assert scale.pairs >= 5
        assert {32_000, 128_256} <= set(scale.vocabularies)
        assert set(scale.batches) == {1, 8}
        assert scale.concurrent == 16
        assert scale.fresh


def test_contestants_take_turns_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []

    def contestant(name: str):
        return lambda: float(calls.append(name) or len(calls))

    found = _loops.rounds({"a": contestant("a"), "b": contestant("b")}, pairs=2)
    assert calls == ["a", "b"] * 3
    assert found == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_both_loops_are_given_the_same_work() -> None:
    bed = _bed.Bed("smoke", device="cpu")
    net = bed.plain(512, torch.float32)
    requests = bed.requests(512, [4, 4])
    assert not net.eos  # nothing but the length ends a text
    for spent in (_loops.ours(net, requests), _loops.ours(net, requests, nothing)):
        assert spent.whole > spent.decode > 0
    spent = _loops.theirs(net, requests)
    assert spent.whole > spent.decode > 0
    with pytest.raises(RuntimeError, match=r"\[4, 5\] tokens were asked"):
        _loops.expect([4, 4], bed.requests(512, [4, 5]))


def test_a_copy_is_fresh_and_the_same() -> None:
    bed = _bed.Bed("smoke", device="cpu")
    one, two = (bed.model(512, torch.float32) for _ in range(2))
    assert one is not two
    weight, other = (model.get_input_embeddings().weight for model in (one, two))
    assert torch.equal(weight, other)
    assert weight.data_ptr() != other.data_ptr()
    assert one.lm_head.weight is weight  # tied, also in a copy


def test_quanto_and_ours_have_the_same_layers() -> None:
    from bitcal_integrations.quantize._wrap import weights_of

    bed = _bed.Bed("smoke", device="cpu")
    own, quanto = (
        weights_of(make(512, torch.float32, "qint8").model) for make in (bed.quantized, bed.quanto)
    )
    assert own == quanto
    assert own
    assert "lm_head" not in own


@pytest.mark.skipif(not _child.memory("VmHWM"), reason="this system does not tell its peak")
def test_the_memory_measurement_sees_a_tap_that_keeps_scores() -> None:
    vocabulary, rows = 40_000, 2
    arguments = {
        "device": "cpu",
        "vocabularies": [vocabulary],
        "batches": [rows],
        "steps": [4, 36],
        "pairs": 1,
        "threads": 1,
    }
    (entry,) = _child.call("_growth", arguments, environment=PRECISE)
    scores = vocabulary * rows * 4
    assert entry["control"][0] / scores == pytest.approx(1, abs=0.2)
    assert entry["tap"][0] / scores < 0.2


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"_nothing failed[\s\S]*No module named"):
        _child.call("_nothing", {})


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(UnknownName, match="concurrency, kernels, loading, tap"):
        bench.run(["speed"])
    with pytest.raises(BadRequest, match="'huge'"):
        bench.run([], size="huge")

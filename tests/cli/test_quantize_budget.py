"""`bitcal quantize --budget`: a type for each layer, shown with its reason, and a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import Result

from bitcal_integrations.cli import _bits
from bitcal_integrations.quantize import plan_bits
from bitcal_integrations.quantize.weights import load_weights, memory_report

from .conftest import Bitcal


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"Say {n}.", "gold": "no"}) + "\n" for n in (1, 2))
    )
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens: the default of 512 is for real answers."""
    from bitcal_integrations import bits

    whole = bits.choose_bits
    monkeypatch.setattr(
        bits, "choose_bits", lambda *a, **k: whole(*a, **{"max_new_tokens": 6, "swaps": 2, **k})
    )


def made(bitcal: Bitcal, folder: Path, out: Path, *more: object) -> Result:
    run = bitcal("quantize", folder, "--out", out, "--dtype", "float32", *more)
    assert run.exit_code == 0, run.output
    return run


def test_a_budget_is_kept_and_explained(
    bitcal: Bitcal, folder: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    run = made(bitcal, folder, out, "--budget", "0.11", "--data", data)
    words = " ".join(run.stdout.split())
    assert "layers qint2 qint4 cost in the smallest" in words
    assert "mlp.down_proj" in words
    assert "0.110 of them" in words or "0.10" in words
    assert "nats per token from the unquantized answers" in words
    table = run.stdout.split("cost:")[0]
    assert max(map(len, table.splitlines())) <= 80
    loaded = load_weights(out)
    assert set(loaded.weights.values()) == {"qint2", "qint4"}
    linears = memory_report(loaded)["linears"].values()
    floats = sum(4 * entry["weights"] for entry in linears)
    assert sum(entry["bytes"] for entry in linears) <= 0.11 * floats
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    fresh = bitcal("ask", out, "Hello", "--max-new-tokens", 8)
    assert fresh.exit_code == 0, fresh.output


def test_right_answers_make_it_a_brier_score(
    bitcal: Bitcal, folder: Path, data: Path, tmp_path: Path
) -> None:
    run = made(
        bitcal, folder, tmp_path / "small", "--budget", "8 bits", "--data", data,
        "--objective", "brier", "--repair", "data-free",
    )  # fmt: skip
    assert "cost: Brier score" in run.stdout
    assert load_weights(tmp_path / "small").parts["repair"]["name"] == "data-free"


def test_a_cut_run_goes_on(
    bitcal: Bitcal, folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, line = tmp_path / "small", ("--budget", "3 bits", "--data", data)
    score = plan_bits._Search._scored

    def cut(self: object, kinds: dict[str, str], label: str) -> float:
        if label.endswith("up_proj qint8"):
            raise KeyboardInterrupt
        return score(self, kinds, label)  # type: ignore[arg-type]

    with monkeypatch.context() as during:
        during.setattr(plan_bits._Search, "_scored", cut)
        run = bitcal("quantize", folder, "--out", out, "--dtype", "float32", *line)
    assert run.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["small.bits.json"]
    kept = json.loads((tmp_path / "small.bits.json").read_text())["values"]
    assert "model.layers.0.mlp.up_proj qint4" in kept
    made(bitcal, folder, out, *line)
    whole = tmp_path / "whole"
    made(bitcal, folder, whole, *line)
    assert load_weights(out).parts == load_weights(whole).parts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "whole"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--budget", "2 bits"), "smallest budget is"),
        (("--budget", "lots"), "budget='lots'"),
        (("--budget", "0.5", "--weights", "qint2"), "exclude each other"),
        (("--data", "x.jsonl"), "--data belongs to --budget"),
        (("--objective", "kl"), "--objective belongs to --budget"),
        (("--budget", "0.5", "--data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--budget", "0.5", "--objective", "ece"), "objective='ece'"),
        (("--budget", "0.5", "--objective", "brier"), "needs data"),
        (("--budget", "0.5", "--grader", "exact"), "--grader belongs to --objective brier"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    more: tuple[str, ...], words: str, bitcal: Bitcal, folder: Path, tmp_path: Path
) -> None:
    run = bitcal("quantize", folder, "--out", tmp_path / "small", *more)
    assert run.exit_code == 1
    assert words in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_of_many_layers_is_shown_by_kind() -> None:
    from bitcal_integrations.bits import BitPlan
    from bitcal_integrations.cli._show import console

    kinds = ("self_attn.q_proj", "mlp.down_proj")
    plan: dict[str, str | None] = {
        f"model.layers.{n}.{kind}": "qint4" if n % 9 == 0 else "qint2"
        for n in range(32)
        for kind in kinds
    }
    why = {name: {"qint2": 0.01, "qint4": 0.001} for name in plan}
    found = BitPlan(plan, 2**30, 7 * 2**30, 2**30, 0.0, 0.5, 0.6, (), why)
    screen = console()
    with screen.capture() as shown:
        _bits.draw(screen, found, "kl")
    lines = shown.get().splitlines()
    assert sum("_proj" in line for line in lines) == 2
    assert "0, 9, 18, 27" in shown.get()

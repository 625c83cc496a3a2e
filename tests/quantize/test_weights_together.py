"""Loads at the same time, and folders that hold more than what we wrote."""

from __future__ import annotations

import threading

import torch
from families import save_tiny

from bitcal_integrations.quantize.weights import load_weights, save_weights


def test_loads_in_several_threads_and_leaves_other_threads_alone(tmp_path) -> None:
    folder = save_tiny(tmp_path / "m")
    results: list[object] = []

    def load() -> None:
        try:
            results.append(load_weights(folder, weights="qint8").weights)
        except Exception as err:
            results.append(err)

    def build() -> None:
        results.extend(torch.nn.Linear(2, 2).weight.device.type for _ in range(200))

    threads = [threading.Thread(target=t) for t in (load, load, load, build)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = [r for r in results if isinstance(r, dict)]
    assert len(kinds) == 3
    assert [r for r in results if not isinstance(r, dict)] == ["cpu"] * 200


def test_saving_again_keeps_what_the_user_put_into_the_folder(tmp_path) -> None:
    loaded = load_weights(save_tiny(tmp_path / "m"), weights="qint8")
    target = tmp_path / "saved"
    save_weights(loaded, target)
    (target / "notes.txt").write_text("mine")
    (target / "profile").mkdir()
    (target / "profile" / "p.json").write_text("{}")
    save_weights(loaded, target)
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "profile" / "p.json").read_text() == "{}"
    assert load_weights(target).weights == loaded.weights

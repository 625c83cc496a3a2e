"""The tap's four numbers against torch's own functions, and its memory."""

from __future__ import annotations

import math

import pytest
import torch

from bitcal_integrations.decode.tap import Tap, Tapped


def measure(tap: Tap, logits: torch.Tensor, chosen: torch.Tensor) -> Tapped:
    return tap(logits, chosen, logits.argmax(-1))


def test_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4: entropy 1.5 bits, margin log 2."""
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])
    tapped = measure(Tap(), logits, torch.tensor([1]))
    assert tapped.logprob[0] == pytest.approx(math.log(1 / 4))
    assert tapped.entropy[0] == pytest.approx(1.5 * math.log(2))
    assert tapped.margin[0] == pytest.approx(math.log(2))
    assert tapped.logsumexp[0] == pytest.approx(math.log(4))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_against_torch(rows: int, masked: bool, scale: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(rows, 500) * scale
    if masked:
        logits[:, ::3] = -torch.inf
    chosen = torch.full((rows,), 4)
    before = logits.clone()
    tapped = measure(Tap(), logits, chosen)
    assert torch.equal(logits, before)
    logprob = torch.log_softmax(logits.double(), -1)
    entropy = torch.special.entr(logprob.exp()).sum(-1)
    top = logprob.topk(2).values
    torch.testing.assert_close(torch.tensor(tapped.entropy).double(), entropy, atol=1e-4, rtol=1e-4)
    margin = (top[:, 0] - top[:, 1]).tolist()
    assert tapped.margin == pytest.approx(margin, rel=1e-4, abs=1e-4)
    assert tapped.logprob == pytest.approx(logprob[:, 4].tolist(), rel=1e-4, abs=1e-4)
    assert tapped.logsumexp == pytest.approx(logits.double().logsumexp(-1).tolist(), rel=1e-5)


def test_ties_have_no_margin() -> None:
    assert measure(Tap(), torch.zeros(1, 4), torch.tensor([0])).margin == [0.0]


def test_the_work_tensors_are_reused() -> None:
    tap = Tap()
    measure(tap, torch.randn(4, 50), torch.zeros(4, dtype=torch.long))
    held = [x.data_ptr() for x in tap._work]
    for rows in (4, 2, 3):
        measure(tap, torch.randn(rows, 50), torch.zeros(rows, dtype=torch.long))
    assert [x.data_ptr() for x in tap._work] == held
    assert all(x.shape == (4, 50) for x in tap._work)

"""The optimizer of the built-in model is torch's Muon, but for the number type of its iteration."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from bitcal_integrations.tiny.muon import Muon, equalized

SHAPES = ((64, 64), (32, 64), (96, 32))


@pytest.mark.parametrize("shape", SHAPES)
def test_all_directions_become_equal_and_stay_where_they_are(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape)))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape)))
    sizes = torch.linspace(0.05, 1, min(shape))
    inside = left.T @ equalized(left * sizes @ right.T) @ right
    diagonal = inside.diagonal()
    assert diagonal.min() > 0.65
    assert diagonal.max() < 1.25
    torch.testing.assert_close(inside, diagonal.diag(), atol=1e-4, rtol=0)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon yet")
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    mine, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    one = Muon([mine], lr=0.01, weight_decay=0.05)
    other = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        gradient = torch.randn(shape)
        for parameter, optimizer in ((mine, one), (theirs, other)):
            parameter.grad = gradient.clone()
            optimizer.step()
    apart = (mine - theirs).norm() / (theirs - start).norm()
    assert apart < 0.02  # what bfloat16 rounds in theirs
    assert (mine - start).norm() > 0.5


def test_its_state_is_saved_and_goes_on() -> None:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    first, second = (Muon([p], lr=0.1, weight_decay=0.0) for p in parameters)
    gradients = torch.randn(3, 4, 4)
    for gradient in gradients[:2]:
        parameters[0].grad = gradient.clone()
        first.step()
    second.load_state_dict(deepcopy(first.state_dict()))
    parameters[1].data.copy_(parameters[0].data)
    for parameter, optimizer in zip(parameters, (first, second), strict=True):
        parameter.grad = gradients[2].clone()
        optimizer.step()
    assert torch.equal(*parameters)

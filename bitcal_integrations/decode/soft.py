"""Soft tokens: embeddings in front of a prompt that belong to no token, served and trained alike.

Their places in a row hold the padding id, so that everything that counts tokens counts them, and
the first forward puts the embeddings there. Knows a model and tensors; not what is asked, nor what
the soft tokens were trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.request import Request, SoftRequest

if TYPE_CHECKING:
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.decode.prompt import Encoded

TOLERANCE = 1e-3  # of the spread of the logits, between tokens and their own embeddings


def soft_of(request: Request) -> Any:
    """The embeddings in front of a request's prompt, (tokens, width); None where there are none."""
    return request.soft if isinstance(request, SoftRequest) else None


def behind_soft(encoded: Encoded, request: Request, pad: int) -> Encoded:
    """The prompt's ids with a place for each soft token in front."""
    if not isinstance(request, SoftRequest):
        return encoded
    if request.soft is None:
        raise BadRequest("the request wants soft tokens in front of its prompt, and has none")
    return replace(encoded, ids=(pad,) * len(request.soft) + tuple(encoded.ids))


def embedded(
    net: Net, ids: torch.Tensor, mask: torch.Tensor, softs: Sequence[Any]
) -> dict[str, Any]:
    """What a left-padded batch adds to its first forward: nothing where no row has soft tokens."""
    if all(soft is None for soft in softs):
        return {}
    if net.encoder_decoder:
        name = type(net.model).__name__
        raise BadRequest(f"{name} reads its prompt with an encoder: soft tokens are not served")
    table = net.model.get_input_embeddings()(ids)
    for row, soft in enumerate(softs):
        if soft is not None:
            first = ids.shape[1] - int(mask[row].sum())
            table[row, first : first + len(soft)] = soft.to(table.device, table.dtype)
    return {"inputs_embeds": table}


def check_soft(net: Net) -> None:
    """Refuse a model that does not say the same of tokens and of their embeddings."""
    name = type(net.model).__name__
    ids = torch.arange(4, 12, device=net.device).unsqueeze(0)
    ids = ids.remainder(net.model.get_input_embeddings().weight.shape[0])
    mask = torch.ones_like(ids)
    whole = net.prefill(ids, mask)[0]
    try:
        none = whole.new_zeros((0, width(net)))
        by_embeddings = net.prefill(ids, mask, [none])[0]
    except BadRequest:
        raise
    except Exception as err:
        raise BadRequest(f"{name} takes no embeddings in place of tokens: {err!r:.200}") from err
    apart = (whole - by_embeddings).norm() / (whole - whole.mean()).norm().clamp_min(1e-12)
    if not float(apart) <= TOLERANCE:
        raise BadRequest(f"{name} gives other logits for the embeddings of tokens than for tokens")


def width(net: Net) -> int:
    """Numbers in an embedding."""
    return int(net.model.get_input_embeddings().weight.shape[1])


@torch.no_grad()
def begin_as(net: Net, text: str, tokens: int) -> torch.Tensor:
    """Soft tokens to start from, (tokens, width) in float32: a text's own, again and again."""
    ids = torch.tensor(net.spelling(text), device=net.device)
    places = torch.arange(tokens, device=net.device).remainder(len(ids))
    found: torch.Tensor = net.model.get_input_embeddings()(ids[places])
    return found.to(torch.float32)


def told_apart(net: Net, words: Sequence[str]) -> list[int]:
    """For each word the token by which it can be told from the others where they begin alike.

    Tokenizers may write a lone space first, or a word in several tokens.
    """
    spelt = [list(net.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words]
    for tokens in zip(*spelt, strict=False):
        if len(set(tokens)) == len(words):
            return list(tokens)
    raise BadRequest(f"the tokenizer cannot tell {' and '.join(words)} apart by one token")


class Prompts:
    """Prompts behind soft tokens, each with the one token that should follow: their loss.

    `prompts` hold ids whose first places are the soft tokens'; the model itself is never changed.
    """

    def __init__(self, net: Net, prompts: Sequence[Sequence[int]], after: Sequence[int]) -> None:
        self._net, self._prompts, self._after = net, prompts, after

    def loss(self, soft: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Mean cross-entropy, in nats, of the tokens that should follow these prompts."""
        net = self._net
        if net.max_rows == 1 and len(rows) > 1:  # padding changes what this model says
            return torch.stack([self.loss(soft, [row]) for row in rows]).mean()
        some = [list(self._prompts[row]) for row in rows]
        longest = max(map(len, some))
        ids = torch.tensor([[net.pad] * (longest - len(p)) + p for p in some], device=net.device)
        mask = torch.tensor(
            [[0] * (longest - len(p)) + [1] * len(p) for p in some], device=net.device
        )
        after = torch.tensor([self._after[row] for row in rows], device=net.device)
        with fresh_outputs(net.model):
            logits = net.first(ids, mask, [soft] * len(some))[0]
        return nn.functional.cross_entropy(logits, after)


@contextmanager
def fresh_outputs(model: nn.Module) -> Iterator[None]:
    """Let layers be differentiated that add to a quantized layer's output in place, as Falcon's do.

    What quanto's own backward gives may not be changed in place; a copy may.
    """
    from optimum.quanto import QModuleMixin

    hooks = [
        layer.register_forward_hook(lambda _layer, _given, out: out.clone())
        for layer in model.modules()
        if isinstance(layer, QModuleMixin)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

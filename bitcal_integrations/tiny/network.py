"""The network of the built-in model, its optimizers, its schedule and its loss. Knows no data."""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.tiny.batches import Batch
from bitcal_integrations.tiny.muon import Muon

LEARNING_RATE, MATRIX_LEARNING_RATE = 2e-3, 3e-3
WARMUP, DECLINE, FLOOR = 60, 0.09, 0.02  # steps, share of the run, share of the rate


HEAD = 32


@dataclass(frozen=True)
class Size:
    """Width 256 is two groups of 128 for int4; 640 by 6 layers are 30 million weights."""

    width: int = 256
    layers: int = 4

    def __post_init__(self) -> None:
        if self.width < 2 * HEAD or self.width % (2 * HEAD) or self.layers < 1:
            raise BadRequest(
                f"a network of width {self.width} with {self.layers} layers is not allowed: the "
                f"width must be a multiple of {2 * HEAD}, and there must be a layer"
            )


def config(tokenizer: PreTrainedTokenizerFast, size: Size) -> LlamaConfig:
    """Heads of 32, two of which share keys and values; tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=3 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // HEAD,
        num_key_value_heads=size.width // HEAD // 2,
        head_dim=HEAD,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices (it needs far fewer tokens here), AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.05),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(step: int, progress: float) -> float:
    """Warm-up, a constant rate, then a straight line down to almost nothing at progress 1.

    The constant part makes a run easy to extend: go on from a checkpoint before the decline.
    """
    return min(1.0, (step + 1) / WARMUP, max(FLOOR, (1 - progress) / DECLINE))


def loss_of(model: LlamaForCausalLM, batch: Batch, prompt_weight: float) -> torch.Tensor:
    """Mean loss over answer tokens, plus a little of the prompt's; only those reach the head."""
    targets, kind = batch.ids[:, 1:], batch.ids.device.type
    bfloat16 = torch.autocast(kind, torch.bfloat16, enabled=has_bfloat16(kind))
    with bfloat16:
        hidden = model.model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
        loss = _loss(model, hidden[batch.answer], targets[batch.answer])
        if prompt_weight:
            prompt = _loss(model, hidden[batch.prompt], targets[batch.prompt])
            return loss + prompt_weight * prompt
    return loss


def has_bfloat16(kind: str) -> bool:
    """Whether a device multiplies bfloat16; without such units it is emulated, 2.5x slower."""
    if kind != "cpu":
        return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _loss(model: LlamaForCausalLM, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model.lm_head(hidden).float(), targets)

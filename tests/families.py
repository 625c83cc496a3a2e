"""Tiny models of nine families and tiny real tokenizers, for tests of any stage.

The weights are random but seeded; the tokenizer is a byte-level one without merges, so every text
round-trips and one character is one to four tokens. Knows nothing about this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "mistral", "falcon", "phi", "opt", "gpt_neox")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
VOCAB = 272  # 4 special tokens, 256 bytes, and room up to the next multiple of 16

CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def tiny_config(family: str, vocab: int = VOCAB, hidden: int = 256, layers: int = 1) -> Any:
    """The smallest config of a family that still has groups of 128 weights and several heads."""
    common = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    wide = {"intermediate_size": hidden}
    grouped = {"num_key_value_heads": 2, **wide}
    own: dict[str, dict[str, Any]] = {
        "llama": grouped,
        "qwen2": grouped,
        "qwen3": {**grouped, "head_dim": hidden // 4},
        "gemma2": {**grouped, "head_dim": hidden // 4},
        "mistral": grouped,
        "falcon": {"multi_query": True, "new_decoder_architecture": False, "alibi": False},
        "phi": {**wide, "num_key_value_heads": 4},
        "opt": {"ffn_dim": hidden, "word_embed_proj_dim": hidden},
        "gpt_neox": wide,
    }
    return AutoConfig.for_model(family, **common, **own[family])


def tiny_model(
    family: str,
    dtype: torch.dtype = torch.float32,
    vocab: int = VOCAB,
    hidden: int = 256,
    layers: int = 1,
    seed: int = 0,
) -> Any:
    """A seeded random model in eval mode."""
    torch.manual_seed(seed)
    config = tiny_config(family, vocab, hidden, layers)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def tiny_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that pads on the left; with a chat template if asked."""
    symbols = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({s: i for i, s in enumerate(symbols)}, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tiny(folder: Path, family: str = "llama", chat: bool = False, **model: Any) -> Path:
    """A model folder as transformers writes it: config, safetensors and tokenizer."""
    tiny_model(family, **model).save_pretrained(folder)
    tiny_tokenizer(chat).save_pretrained(folder)
    return folder


def save_quanto(family: str, folder: Path) -> Any:
    """A bfloat16 int4 model as quanto itself saves it; the model."""
    from optimum.quanto import QuantizedModelForCausalLM, qint4

    model = tiny_model(family, torch.bfloat16)
    wrapped = QuantizedModelForCausalLM.quantize(model, weights=qint4, exclude="*lm_head")
    wrapped.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def padded_batch(vocab: int = VOCAB) -> dict[str, torch.Tensor]:
    """Two rows of tokens, the second with three pads on the left."""
    ids = torch.arange(14).reshape(2, 7) * 31 % (vocab - 4) + 4
    mask = torch.ones_like(ids)
    ids[1, :3], mask[1, :3] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def logits_of(model: Any) -> torch.Tensor:
    """The logits of the padded batch."""
    vocab = model.get_input_embeddings().weight.shape[0]
    logits: torch.Tensor = model(**padded_batch(vocab)).logits
    return logits

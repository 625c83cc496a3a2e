"""A model as the decode loop sees it: one forward per step, special tokens, limits.

It knows nothing about requests or rows. The model is fed through its own
`prepare_inputs_for_generation`, so whatever `generate` serves is served here.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from bitcal_integrations.compat import cache_name
from bitcal_integrations.decode import cache as kv
from bitcal_integrations.decode._tool_text import HERMES
from bitcal_integrations.decode._trial import Spelling
from bitcal_integrations.decode.consistency import check
from bitcal_integrations.decode.cues import cue_ids
from bitcal_integrations.decode.hidden import chosen, layers_of
from bitcal_integrations.decode.prompt import THINK, Encoded, encode
from bitcal_integrations.decode.soft import behind_soft, embedded
from bitcal_integrations.errors import LoadError, PromptTooLong
from bitcal_integrations.types import Request

if TYPE_CHECKING:
    from bitcal_integrations.decode.constraint import Constraint
    from bitcal_integrations.decode.grammar import Grammars


class Net:
    """Wraps a PreTrainedModel in eval mode and its tokenizer. Not thread-safe but for `encode`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = _inner(model)
        self.tokenizer = tokenizer
        self.device = torch.device(self.model.device)
        self.eos = _eos_ids(self.model, tokenizer)
        self.pad = _pad_id(self.model, tokenizer, self.eos)
        self.context = _context(self.model.config)
        self.joinable, self.batching = kv.can_join(self.model)
        self.encoder_decoder = bool(getattr(self.model.config, "is_encoder_decoder", False))
        self.literal = _visible_marks(tokenizer)
        accepted = inspect.signature(self.model.forward).parameters
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._takes_positions = "position_ids" in accepted
        self._cache_name = cache_name(self.model)
        # Encoding may set a tokenizer's truncation anew, which must not happen under a decode: do
        # it once here, and one at a time later. Decoding only reads.
        self._encoding = threading.Lock()
        tokenizer("a")
        self.max_rows: int | None = None
        if not check(self):
            self.joinable, self.max_rows = False, 1
            self.batching = "padding changes what this model says: one row at a time"

    def encode(self, request: Request) -> Encoded:
        """The prompt's ids; an error if they leave no room for an answer."""
        with self._encoding:
            encoded = behind_soft(encode(self.tokenizer, request), request, self.pad)
        if self.context is not None and len(encoded.ids) >= self.context:
            raise PromptTooLong(len(encoded.ids), self.context)
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    # Inference mode would break quanto's int4 and int2 weights, which update a version counter.
    @torch.no_grad()
    def prefill(
        self, ids: torch.Tensor, mask: torch.Tensor, softs: Sequence[Any] = ()
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Last-position float32 logits of a padded batch, its cache, and what steps must carry.

        `softs` holds for each row the soft tokens that stand at its beginning, or None.
        """
        return self.first(ids, mask, softs)

    def first(
        self, ids: torch.Tensor, mask: torch.Tensor, softs: Sequence[Any] = ()
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """`prefill` that can be differentiated."""
        soft = embedded(self, ids, mask, softs)
        if self.encoder_decoder:
            return self._prefill_encoder(ids, mask)
        cache = kv.new_cache() if self.joinable else self._own_cache()
        logits, cache = self._forward(ids, mask, cache, ids.shape[1], soft, first=True)
        return logits, cache, {}

    @torch.no_grad()
    def step(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, carry: dict[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """Logits after the last column of `ids`, which the cache does not hold yet."""
        return self._forward(ids, mask, cache, 1, carry, first=False)

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: Any,
        new: int,
        carry: dict[str, Any],
        first: bool,
    ) -> tuple[torch.Tensor, Any]:
        extra = {**self._extra, **carry}
        if self._takes_positions and not self.encoder_decoder:
            positions = (mask.cumsum(-1) - 1).clamp_(min=0)
            extra["position_ids"] = positions[:, -new:]
        inputs = self.model.prepare_inputs_for_generation(
            ids,
            next_sequence_length=new,
            use_cache=True,
            is_first_iteration=first,
            **{"attention_mask": mask, self._cache_name: cache, **extra},
        )
        out = self.model(**inputs, return_dict=True)
        held = out.get(self._cache_name, cache)
        return out.logits[:, -1].to(torch.float32), held

    def _own_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _prefill_encoder(
        self, ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        from transformers import DynamicCache, EncoderDecoderCache

        encoder = self.model.get_encoder()
        carry = {
            "encoder_outputs": encoder(input_ids=ids, attention_mask=mask, return_dict=True),
            "attention_mask": mask,
        }
        config = self.model.config
        cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        start = self.decoder_start().expand(len(ids), 1)
        logits, cache = self._forward(start, torch.ones_like(start), cache, 1, carry, first=True)
        return logits, cache, carry

    def decoder_start(self) -> torch.Tensor:
        token = self.model.generation_config.decoder_start_token_id
        token = self.model.config.decoder_start_token_id if token is None else token
        return torch.tensor([[token]], device=self.device)

    @cached_property
    def grammars(self) -> Grammars:
        """What holds this model's texts to schemas and tool calls; needs the extra `tools`."""
        from bitcal_integrations.decode.grammar import Grammars

        head = self.model.get_output_embeddings()
        width = int(head.weight.shape[0]) if head is not None else len(self.tokenizer)
        return Grammars(self.tokenizer, max(width, len(self.tokenizer)), self.eos)

    def constraint(self, request: Request, encoded: Encoded, room: int) -> Constraint | None:
        """What holds a request's text to its schema or tools; None where it is free."""
        if not request.constrained:
            return None
        from bitcal_integrations.decode.constraint import Constraint

        close = dict(THINK)[encoded.open_mark] if encoded.open_mark else None
        grammar = self.grammars.of(request, encoded.calls, room, close is not None)
        return Constraint(grammar, self.grammars, room, close)

    @cached_property
    def layers(self) -> torch.nn.ModuleList:
        """The layers that hidden states can be read behind."""
        return layers_of(self.model)

    def layer_of(self, layer: int) -> int:
        """The layer to read hidden states behind: this one if it is there; for 0 the usual one."""
        return chosen(self.layers, layer)

    @cached_property
    def spelling(self) -> Spelling:
        """How texts that ask for an answer are spelt behind other text."""

        def encode(text: str) -> list[int]:
            with self._encoding:
                return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

        return Spelling(encode, self.decode)

    @cached_property
    def cues(self) -> torch.Tensor:
        """The tokens with which a text begins to doubt or to check what it has."""
        return torch.tensor(cue_ids(self.tokenizer), dtype=torch.long, device=self.device)

    @cached_property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one more token of one row takes, as measured; else 0."""
        if not self.joinable:
            return 0
        ids = torch.full((1, 2), self.pad, device=self.device)
        _, cache, _ = self.prefill(ids, torch.ones_like(ids))
        return kv.bytes_held(cache) // 2


def _inner(model: Any) -> Any:
    """The model whose forward is to be called: a PEFT adapter's layers sit inside its base."""
    adapters = getattr(model, "peft_config", None)
    if adapters is None or not hasattr(model, "get_base_model"):
        return model
    for name, adapter in adapters.items():
        if getattr(adapter, "is_prompt_learning", False):
            kind = getattr(adapter, "peft_type", type(adapter).__name__)
            raise LoadError(
                f"the adapter {name!r} ({kind}) learns virtual tokens, which are not served",
                "Use an adapter that changes layers, such as LoRA.",
            )
    return model.get_base_model()


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a text, from the generation config, the config and the tokenizer."""
    found: set[int] = set()
    for owner in (model.generation_config, model.config, tokenizer):
        value = getattr(owner, "eos_token_id", None)
        values = value if isinstance(value, (list, tuple)) else [value]
        found.update(int(i) for i in values if i is not None)
    return frozenset(found)


def _pad_id(model: Any, tokenizer: Any, eos: frozenset[int]) -> int:
    """An id that the embedding has; it is masked out everywhere, so any will do."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    for owner in (tokenizer, model.generation_config):
        value = getattr(owner, "pad_token_id", None)
        if value is not None and 0 <= value < rows:  # an added [PAD] may lie beyond it
            return int(value)
    return min(eos, default=0)


def _context(config: Any) -> int | None:
    """The longest prompt and answer together, or None where the model sets no limit."""
    if getattr(config, "is_encoder_decoder", False):
        return None
    text = config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _visible_marks(tokenizer: Any) -> dict[int, str]:
    """Marks of reasoning and of calls that are special tokens, which decoding would drop."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    marks = [mark for pair in (*THINK, (HERMES.opens, HERMES.closes)) for mark in pair]
    vocabulary = tokenizer.get_vocab()
    return {vocabulary[m]: m for m in marks if vocabulary.get(m) in special and m in vocabulary}

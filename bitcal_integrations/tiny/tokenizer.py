"""Trains the tokenizer: byte-level BPE that splits digits, with a chat template.

Every text gets a leading space on the way in and loses it on the way out, so that a name at the
start of an answer has the same tokens as in the middle of a passage: a small model can then copy
it. Knows strings, and the questions that those of a training come from.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from bitcal_integrations.tiny.tasks import TASKS, stream

VOCABULARY = 1280
BOS, PAD, END = "<|bos|>", "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A tokenizer whose merges come from the texts; `<|end|>` ends turns and answers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json with the chat template inside."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def make_tokenizer(out: Path, seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a run, trained the first time."""
    if not (out / "tokenizer" / "tokenizer.json").is_file():
        save_tokenizer(train_tokenizer(corpus(seed)), out / "tokenizer")
    return PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")


def corpus(seed: int, per_task: int = 12000) -> list[str]:
    """Texts for the tokenizer, from training questions of every task."""
    drawn = [q for task in TASKS for q in islice(stream(task, "train", seed + 1), per_task)]
    return [text for q in drawn for text in (*(m["content"] for m in q.messages), q.answer)]

"""What the callback handlers share: from LangChain's events to Records in a tree of runs.

`Watch` turns an event into an entry of the tree; `Collector` is the handler that a router hangs
into one branch to hear of the answers given there. Neither judges an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from bitcal_integrations.chains.records import record_of_bitcal
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.langchain._calls import find_step
from bitcal_integrations.langchain._tree import RunTree, Told
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Prompt, Record

# What a router, an early-stop chain or a sampler says when it has settled on one answer.
STEPS = "bitcal.steps"
CHOICES = ("bitcal.route", STEPS, "bitcal.votes")
_ROLES = {"human": "user", "ai": "assistant"}


class Watch:
    """Events in, Records out; the answers of one chain belong to one root run.

    With `each_step` the steps of an early-stop chain all count; else it has given one answer.
    """

    def __init__(
        self, profile: Profile | None = None, task: str = "default", keep: int = 1000,
        each_step: bool = False,
    ) -> None:  # fmt: skip
        self.tree = RunTree(keep)
        self._each_step = each_step
        self._profile, self._task = profile, task

    def answered(self, response: LLMResult, run: UUID) -> list[Told]:
        """A model has answered: the answers beneath its root so far, this one last."""
        record = find_step(response, profile=self._profile, task=self._task)
        assert record is not None  # an LLMResult always has a place for one
        prompt, _ = self.tree.asked(run)
        told = self.tree.tell(run, _with_prompt(record, prompt))
        self.tree.end(run)
        return told

    def chosen(self, name: str, data: Any, run: UUID) -> None:
        """A run has settled on one of the answers beneath it."""
        if name not in CHOICES or not isinstance(data, Mapping) or not data.get("bitcal"):
            return
        replaced = name != STEPS or data.get("ended") == "hopeless"  # by a fallback's answer
        if replaced or not self._each_step:
            text, model = str(data.get("text", "")), str(data.get("model", ""))
            self.tree.choose(run, record_of_bitcal(data["bitcal"], text, model=model))


def trail_of(told: Sequence[Told], **options: Any) -> Trail:
    """A Trail over these answers, with Trail's own options."""
    trail = Trail(**options)
    for answer in told:
        trail.add(answer.record, answer.name)
    return trail


def turns_of(messages: Sequence[BaseMessage]) -> Prompt:
    """LangChain's messages as role and content."""
    return tuple({"role": _ROLES.get(m.type, m.type), "content": str(m.text)} for m in messages)


def name_of(serialized: Any, options: Mapping[str, Any]) -> str:
    """The name that a run goes by."""
    return str(options.get("name") or (serialized or {}).get("name") or "")


def _with_prompt(record: Record, prompt: Prompt) -> Record:
    return replace(record, request=replace(record.request, prompt=prompt)) if prompt else record


class TreeHandler(BaseCallbackHandler):
    """Keeps the tree of runs; what it does with an answer is up to its children."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID,
        parent_run_id: UUID | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        prompt = turns_of(messages[0]) if messages else ""
        self.watch.tree.begin(run_id, parent_run_id, prompt, name_of(serialized, kwargs))

    def on_llm_start(
        self, serialized: Any, prompts: list[str], *, run_id: UUID,
        parent_run_id: UUID | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        prompt = prompts[0] if prompts else ""
        self.watch.tree.begin(run_id, parent_run_id, prompt, name_of(serialized, kwargs))

    def _starts(self, *args: Any, **kwargs: Any) -> Any:
        self.watch.tree.begin(kwargs["run_id"], kwargs.get("parent_run_id"))

    def _ends(self, *args: Any, **kwargs: Any) -> Any:
        self.watch.tree.end(kwargs["run_id"])

    on_chain_start = on_tool_start = on_retriever_start = _starts
    on_chain_end = on_tool_end = on_retriever_end = _ends
    on_chain_error = on_llm_error = on_tool_error = on_retriever_error = _ends

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        self.watch.answered(response, run_id)

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        self.watch.chosen(name, data, run_id)


class Collector(TreeHandler):
    """Hears every answer given in one branch, whatever the branch makes of it afterwards."""

    raise_error = True  # a failure in here must not read as "unknown"
    run_inline = True  # it only files what it hears

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._spent: list[int] = []

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        told = self.watch.answered(response, run_id)
        self._spent.append(told[-1].record.generation.n_tokens)

    @property
    def tokens(self) -> int:
        """The tokens of all answers given in the branch, those that were not chosen too."""
        return sum(self._spent)

    def record(self, aggregate: str = "last") -> Record | None:
        """The last answer of the branch, its confidence aggregated; None if no model was asked."""
        told = self.watch.tree.all_answers()
        if not told:
            return None
        last = told[-1].record
        if aggregate == "last" or len(told) == 1:
            return last
        trail = trail_of(told, aggregate=aggregate)
        reason = f"{aggregate} over {len(told)} answers of the chain"
        value = trail.value
        confidence = replace(
            last.confidence, value=value, low=None, high=None, interval=None, reason=reason,
            calibrated=last.confidence.calibrated and value is not None,
        )  # fmt: skip
        return replace(last, confidence=confidence)

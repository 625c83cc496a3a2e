"""ConfidenceEvaluator: an evaluator that passes an answer if its confidence does.

It drops into RetryQueryEngine and BatchEvalRunner in place of a judge, and asks no model. It
reads the confidence that a response carries; a bare string carries none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

from bitcal_integrations.llama_index._course import policy_of
from bitcal_integrations.llama_index._records import record_of, text_of

BARE = (
    "a text alone carries no confidence: use evaluate_response with the response of an engine "
    "from with_confidence"
)


class ConfidenceEvaluator(BaseEvaluator):
    """Passes what `policy` (a number, a Certificate or a Policy) accepts; 0.7 without one.

    `score` is the confidence, None where it is unknown; `feedback` is the policy's reason, which
    retrying engines show to the llm. It never raises: BatchEvalRunner would wait and try again.
    """

    def __init__(
        self,
        policy: Any = None,
        *,
        min_confidence: float | None = None,
        on_unknown: str | None = None,
    ) -> None:
        self._policy = policy_of(policy, min_confidence, on_unknown)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        """There are none: no model is asked."""

    def evaluate_response(
        self, query: str | None = None, response: Any = None, **kwargs: Any
    ) -> EvaluationResult:
        """Whether a response of an engine is certain enough."""
        if response is None:
            return self.evaluate(query)
        nodes = getattr(response, "source_nodes", None) or []
        contexts = [node.get_content() for node in nodes]
        record = record_of(response, prompt=query or "")
        decision = self._policy.decide(record)
        passing = decision.action == "accept"
        return EvaluationResult(
            query=query,
            response=text_of(response),
            contexts=contexts,
            passing=passing,
            score=record.confidence.value,
            feedback=f"confidence {'enough' if passing else 'too low'}: {decision.reason}",
        )

    async def aevaluate_response(
        self, query: str | None = None, response: Any = None, **kwargs: Any
    ) -> EvaluationResult:
        """`evaluate_response` for an event loop; it computes nothing that could block it."""
        return self.evaluate_response(query, response, **kwargs)

    def evaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Invalid, with the reason: nothing is known of a text alone."""
        return EvaluationResult(
            query=query,
            response=response,
            contexts=contexts,
            invalid_result=True,
            invalid_reason=BARE,
        )

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """`evaluate` for an event loop."""
        return self.evaluate(query, response, contexts)

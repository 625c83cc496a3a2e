"""A model with bound options (tools, a config), and the short form of a confidence router.

LangChain's own binding hands unknown methods to the model inside and forgets what was bound; this
one does not. Knows ConfidenceRouter and no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models.chat_models import _ChatModelBinding
from langchain_core.runnables import Runnable, RunnableBinding

from bitcal_integrations.langchain import _structured

if TYPE_CHECKING:
    from bitcal_integrations.langchain.router import ConfidenceRouter


class WithFallback:
    """Gives a runnable `with_confidence_fallback`."""

    def with_confidence_fallback(
        self,
        fallbacks: Any,
        *,
        min_confidence: float | None = None,
        policy: Any = None,
        **options: Any,
    ) -> ConfidenceRouter:
        """This model first, then each of `fallbacks` (any runnables) while the answer is unsure.

        Sure enough is `min_confidence` (0.7 if nothing is given) or what a `policy` accepts. The
        further options are ConfidenceRouter's: on_exhausted, on_unknown, scored_by, names.
        """
        from bitcal_integrations.langchain.router import ConfidenceRouter

        if min_confidence is None and policy is None:
            min_confidence = 0.7
        return ConfidenceRouter(
            self, fallbacks, min_confidence=min_confidence, policy=policy, **options
        )


class BoundLLM(WithFallback, RunnableBinding[Any, str]):
    """BitCalLLM with bound options."""


class BoundChat(WithFallback, _ChatModelBinding):
    """ChatBitCal with bound options; it is what `bind`, `bind_tools` and `with_config` give."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """ChatBitCal.bind_tools, beside what is bound already."""
        return self.bind(**self.bound.bind_tools(tools, **kwargs).kwargs)  # type: ignore[attr-defined]

    def with_structured_output(
        self,
        schema: Any,
        *,
        method: str = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """ChatBitCal.with_structured_output, beside what is bound already."""
        return _structured.structured(self, schema, method, include_raw, kwargs)

"""LlamaIndex: an LLM with calibrated confidence, and the engines, agents and workflows that use it.

`BitCalLLM` answers; `with_confidence(engine)` puts the confidence of its answers into
`response.metadata`; the fallback engine, the multi-step engine, the evaluator and the agent mixin
act on it. Names are resolved when they are first used, so importing this package loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcal_integrations.lazy import lazy_names

if TYPE_CHECKING:
    from bitcal_integrations.llama_index.agent import ConfidenceAgentMixin
    from bitcal_integrations.llama_index.confidence import get_confidence
    from bitcal_integrations.llama_index.engine import ConfidenceFallbackQueryEngine
    from bitcal_integrations.llama_index.evaluator import ConfidenceEvaluator
    from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM
    from bitcal_integrations.llama_index.handler import (
        ConfidenceCallbackHandler,
        ConfidenceEventHandler,
    )
    from bitcal_integrations.llama_index.llm import BitCalLLM
    from bitcal_integrations.llama_index.multi_step import (
        ConfidenceMultiStepQueryEngine,
        StepTracker,
        make_stop_fn,
    )
    from bitcal_integrations.llama_index.rag import RAGConfidence
    from bitcal_integrations.llama_index.selector import ConfidenceSelector
    from bitcal_integrations.llama_index.workflow import (
        ConfidenceEvent,
        ConfidenceFallbackWorkflow,
        ConfidenceGate,
        ReviewAnswer,
        ReviewEvent,
        gate,
    )
    from bitcal_integrations.llama_index.wrap import with_confidence

__all__ = [
    "BitCalLLM",
    "ConfidenceAgentMixin",
    "ConfidenceCallbackHandler",
    "ConfidenceEvaluator",
    "ConfidenceEvent",
    "ConfidenceEventHandler",
    "ConfidenceFallbackLLM",
    "ConfidenceFallbackQueryEngine",
    "ConfidenceFallbackWorkflow",
    "ConfidenceGate",
    "ConfidenceMultiStepQueryEngine",
    "ConfidenceSelector",
    "RAGConfidence",
    "ReviewAnswer",
    "ReviewEvent",
    "StepTracker",
    "gate",
    "get_confidence",
    "make_stop_fn",
    "with_confidence",
]

_HOME = {
    "BitCalLLM": "llm",
    "ConfidenceAgentMixin": "agent",
    "ConfidenceCallbackHandler": "handler",
    "ConfidenceEvaluator": "evaluator",
    "ConfidenceEvent": "workflow",
    "ConfidenceEventHandler": "handler",
    "ConfidenceFallbackLLM": "fallback_llm",
    "ConfidenceFallbackQueryEngine": "engine",
    "ConfidenceFallbackWorkflow": "workflow",
    "ConfidenceGate": "workflow",
    "ConfidenceMultiStepQueryEngine": "multi_step",
    "ConfidenceSelector": "selector",
    "RAGConfidence": "rag",
    "ReviewAnswer": "workflow",
    "ReviewEvent": "workflow",
    "StepTracker": "multi_step",
    "gate": "workflow",
    "get_confidence": "confidence",
    "make_stop_fn": "multi_step",
    "with_confidence": "wrap",
}

__getattr__, __dir__ = lazy_names(globals(), _HOME)

"""LangChain: local chat models with a confidence on every answer, and chains that act on it.

`ChatBitCal` and `BitCalLLM` translate in, ask the shared CalibratedModel, and translate out;
`ConfidenceRouter`, `ConfidenceGate`, `early_stop_chain`, `AdaptiveSampler`, the callback handlers
and the agents' middleware act on what they say. Knows no calibration. Names are resolved when they
are first used, so that importing this package loads no part of LangChain that is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcal_integrations.lazy import lazy_names

if TYPE_CHECKING:
    from bitcal_integrations.langchain.chat import ChatBitCal
    from bitcal_integrations.langchain.confidence import get_confidence
    from bitcal_integrations.langchain.early_stop import early_stop_chain
    from bitcal_integrations.langchain.gate import ConfidenceGate
    from bitcal_integrations.langchain.handler import (
        AsyncConfidenceCallbackHandler,
        ConfidenceCallbackHandler,
    )
    from bitcal_integrations.langchain.llm import BitCalLLM
    from bitcal_integrations.langchain.middleware import (
        ConfidenceFallbackMiddleware,
        ConfidenceReviewMiddleware,
    )
    from bitcal_integrations.langchain.router import ConfidenceRouter
    from bitcal_integrations.langchain.sampler import AdaptiveSampler

__all__ = [
    "AdaptiveSampler",
    "AsyncConfidenceCallbackHandler",
    "BitCalLLM",
    "ChatBitCal",
    "ConfidenceCallbackHandler",
    "ConfidenceFallbackMiddleware",
    "ConfidenceGate",
    "ConfidenceReviewMiddleware",
    "ConfidenceRouter",
    "early_stop_chain",
    "get_confidence",
]

_HOME = {
    "AdaptiveSampler": "sampler",
    "AsyncConfidenceCallbackHandler": "handler",
    "BitCalLLM": "llm",
    "ChatBitCal": "chat",
    "ConfidenceCallbackHandler": "handler",
    "ConfidenceFallbackMiddleware": "middleware",
    "ConfidenceGate": "gate",
    "ConfidenceReviewMiddleware": "middleware",
    "ConfidenceRouter": "router",
    "early_stop_chain": "early_stop",
    "get_confidence": "confidence",
}

__getattr__, __dir__ = lazy_names(globals(), _HOME)

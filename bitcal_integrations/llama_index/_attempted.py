"""What one of the asked gave or failed with, as plain data that a workflow's store can keep.

It knows Responses, Records and our own errors; another's error is kept as an EngineError.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.base.response.schema import Response
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.schema import NodeWithScore
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc

from bitcal_integrations import errors
from bitcal_integrations.llama_index._records import text_of
from bitcal_integrations.types import Record


class Attempted(BaseModel):
    """The answer of one that was asked, or how it failed."""

    record: dict[str, Any] | None = None
    error: str | None = None
    kind: str = "EngineError"
    text: str = ""
    nodes: list[tuple[dict[str, Any], float | None]] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, response: Response) -> Attempted:
        return cls(
            record=record.to_dict(), text=text_of(response), metadata=response.metadata or {},
            nodes=[(doc_to_json(n.node), n.score) for n in response.source_nodes],
        )  # fmt: skip

    @classmethod
    def failed(cls, error: Exception) -> Attempted:
        record = getattr(error, "record", None)
        kept = record.to_dict() if isinstance(record, Record) else None
        return cls(record=kept, error=str(error), kind=type(error).__name__)

    def response(self) -> Response:
        nodes = [NodeWithScore(node=json_to_doc(node), score=score) for node, score in self.nodes]
        return Response(self.text, nodes, self.metadata)

    def raised(self) -> errors.BitcalError:
        """The error, of its own kind where it is one of ours."""
        if self.kind == "LowConfidenceError":
            record = Record.from_dict(self.record) if self.record else None
            return errors.LowConfidenceError(self.error or "", record, hint="")
        kind = getattr(errors, self.kind, errors.EngineError)
        error: errors.BitcalError = kind.__new__(kind)
        errors.BitcalError.__init__(error, self.error or "", hint="")
        return error

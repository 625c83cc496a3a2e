"""A person's verdict on an uncertain answer: the question that pauses a LangGraph run, the reply.

It knows LangGraph's `interrupt` and imports it only when it is needed; it keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from bitcal_integrations.errors import BadRequest, MissingExtra

REPLIES = (
    "{'action': 'accept'}, {'action': 'edit', 'text': ...} or "
    "{'action': 'reject', 'text': <what to say instead, or nothing>}"
)


@dataclass(frozen=True)
class Review:
    """What a person decided; `text` is the edited answer, or what to say after a rejection."""

    action: Literal["accept", "edit", "reject"]
    text: str = ""


def need_langgraph() -> None:
    """Refuse where no run can be paused."""
    if find_spec("langgraph") is None:
        raise MissingExtra("langgraph", "agents")


def ask_person(question: Mapping[str, Any]) -> Review:
    """Pause the LangGraph run with this question; the reply it is resumed with."""
    need_langgraph()
    from langgraph.types import interrupt

    try:
        return read_review(interrupt(dict(question)))
    except (KeyError, RuntimeError) as err:
        raise BadRequest(
            "an answer waits for a person, and there is no LangGraph run to pause",
            "Call it inside a graph that has a checkpointer, or choose another on_exhausted.",
        ) from err


def read_review(reply: Any) -> Review:
    """The reply of `Command(resume=...)`; a bare text is an edit, True and False the verdict.

    >>> read_review({"action": "edit", "text": "Paris"})
    Review(action='edit', text='Paris')
    >>> read_review(True), read_review("Paris").action
    (Review(action='accept', text=''), 'edit')
    """
    if isinstance(reply, bool):
        return Review("accept" if reply else "reject")
    if isinstance(reply, str) and reply.strip():
        return Review("edit", reply)
    if isinstance(reply, Mapping) and reply.get("action") in ("accept", "edit", "reject"):
        text = reply.get("text") or ""
        if isinstance(text, str) and (text.strip() or reply["action"] != "edit"):
            return Review(reply["action"], text)
    raise BadRequest(f"the review {reply!r:.100} is not understood: resume with {REPLIES}")

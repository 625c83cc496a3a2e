"""RAGConfidence: how likely a RAG answer is right, from its retrieval, its words and its grounds.

Three kinds of evidence become one number by a calibrator that is fitted on labelled answers, as
everywhere in this package; until then the confidence is unknown. It knows responses and numbers;
it retrieves nothing and answers nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import Calibrator, fit_calibrator
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.llama_index._grounded import OPTIONS, asks, prompt_of, share_of
from bitcal_integrations.llama_index._records import record_of, text_of
from bitcal_integrations.types import Confidence

VERSION = 1
# The primary score first: the calibrated confidence of the answer, or its bare score.
NAMES = ("answer", "answer_raw", "grounded", "top_score", "mean_score", "score_gap")
MEASURED = 0.9  # of the examples: a feature that is missing more often is not used
UNFITTED = "the RAG confidence has not been fitted on labelled answers"


class RAGConfidence:
    """P(right) of a RAG answer, calibrated on labelled ones.

    `model` (one that `load` gave, or a BitCalLLM) is asked for one token whether the context says
    what the answer says; without it that feature is left out. `fit` takes (question, response)
    pairs with whether each was right; then `predict(question, response)` gives a Confidence. Use
    it as `scorer=` of a ConfidenceFallbackQueryEngine to route by it.

    The responses are those of an engine from `with_confidence`. Features: `answer` (its
    confidence) or, where that is unknown, `answer_raw`; `grounded`; `top_score`, `mean_score` and
    `score_gap` (from the best to the second) of the retrieved nodes, on whatever scale.
    """

    def __init__(self, model: Any = None, *, calibrator: Calibrator | None = None) -> None:
        self._model = None if model is None else asks(model)
        self.calibrator = calibrator
        if calibrator is not None and "grounded" in calibrator.names and model is None:
            raise BadRequest("it was fitted with the feature 'grounded', which needs model=")

    @property
    def names(self) -> tuple[str, ...]:
        """The features that it goes by; empty until it is fitted."""
        return () if self.calibrator is None else self.calibrator.names

    # ---- features --------------------------------------------------------------------------------

    def features(self, question: str, response: Any) -> dict[str, float]:
        """What can be measured of one answer, by name."""
        return self._features([(question, response)])[0]

    async def afeatures(self, question: str, response: Any) -> dict[str, float]:
        """`features` for an event loop."""
        found = features_of(response)
        if self._model is not None and (prompt := _prompt(question, response)) is not None:
            (result,) = await self._model.aask([prompt], **OPTIONS, return_errors=True)
            found["grounded"] = share_of(result)
        return _known(found)

    def _features(self, pairs: Sequence[tuple[str, Any]]) -> list[dict[str, float]]:
        rows = [features_of(response) for _, response in pairs]
        prompts = [_prompt(question, response) for question, response in pairs]
        where = [i for i, prompt in enumerate(prompts) if prompt is not None]
        if self._model is not None and where:
            asked = [prompts[i] for i in where]
            results = self._model.ask(asked, **OPTIONS, return_errors=True)
            for i, result in zip(where, results, strict=True):
                rows[i]["grounded"] = share_of(result)
        return [_known(row) for row in rows]

    # ---- fitting and predicting ------------------------------------------------------------------

    def fit(
        self,
        examples: Sequence[tuple[str, Any]],
        correct: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        method: str = "auto",
        groups: Any = None,
    ) -> RAGConfidence:
        """Learn from (question, response) pairs and whether each response was right.

        `names` are the features to use; without them those that most examples have and that vary.
        `method` and `groups` are those of `fit_calibrator`. All questions about groundedness are
        asked in one batch. The rows that lack a feature are left out, and counted in the
        calibrator's `reason`.
        """
        pairs = [_pair(example) for example in examples]
        if not pairs:
            raise CalibrationError("there is no example to fit the RAG confidence on")
        rows = self._features(pairs)
        chosen = tuple(_useful(rows) if names is None else _checked(names))
        self.calibrator = fit_calibrator(
            np.stack([_vector(row, chosen) for row in rows]), correct, chosen, method, groups=groups
        )
        return self

    def predict(self, question: str, response: Any) -> Confidence:
        """How likely this response is right, or why that is unknown."""
        return self._confidence(response, self.features(question, response))

    async def apredict(self, question: str, response: Any) -> Confidence:
        """`predict` for an event loop."""
        return self._confidence(response, await self.afeatures(question, response))

    def _confidence(self, response: Any, found: Mapping[str, float]) -> Confidence:
        own = record_of(response).confidence
        bare = Confidence(raw=own.raw, signals={**own.signals, **found}, task="rag")
        if self.calibrator is None:
            return replace(bare, reason=UNFITTED)
        missing = [name for name in self.names if name not in found]
        if missing:
            return replace(bare, reason=f"not measured: {', '.join(missing)}")
        row = _vector(found, self.names)[None, :]
        low, high = (float(v) for v in self.calibrator.interval(row)[0])
        return replace(
            bare, value=float(self.calibrator(row)[0]), calibrated=True, low=low, high=high,
            interval=self.calibrator.interval_kind,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; the model is not part of it."""
        fitted = None if self.calibrator is None else self.calibrator.to_dict()
        return {"version": VERSION, "kind": "rag", "calibrator": fitted}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], model: Any = None) -> RAGConfidence:
        """What `to_dict` wrote, with the model to ask."""
        wrong = CalibrationError(f"{data!r:.80} is not what to_dict of a RAGConfidence wrote")
        if not isinstance(data, Mapping):
            raise wrong
        found = data.get("kind"), data.get("version")
        if found != ("rag", VERSION):
            raise CalibrationError(
                f"kind {found[0]!r}, version {found[1]!r}; this reads 'rag', version {VERSION}"
            )
        if "calibrator" not in data:
            raise wrong
        fitted = data["calibrator"]
        try:
            calibrator = None if fitted is None else Calibrator.from_dict(fitted)
        except (LookupError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{fitted!r:.80} is no whole calibrator: {error!r}") from error
        return cls(model, calibrator=calibrator)


def features_of(response: Any) -> dict[str, float]:
    """What a response says of itself: its confidence, and the scores of its nodes."""
    confidence = record_of(response).confidence
    scores = sorted((float(n.score) for n in _nodes(response) if n.score is not None), reverse=True)
    found = {"answer": confidence.value, "answer_raw": confidence.raw}
    if scores:
        found |= {"top_score": scores[0], "mean_score": math.fsum(scores) / len(scores)}
    if len(scores) > 1:
        found["score_gap"] = scores[0] - scores[1]
    return {name: math.nan if v is None else v for name, v in found.items()}


def _nodes(response: Any) -> Sequence[Any]:
    """The retrieved nodes; what has no place for them was not retrieved for."""
    if not hasattr(response, "source_nodes"):
        raise BadRequest(f"{response!r:.80} is no response of a query engine or a chat engine")
    return response.source_nodes or ()


def _known(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _prompt(question: str, response: Any) -> str | None:
    """What to ask about an answer; nothing where it is empty or nothing was retrieved."""
    passages = [node.get_content() for node in _nodes(response)]
    text = text_of(response).strip()
    return prompt_of(question, text, passages) if text and passages else None


def _pair(example: Any) -> tuple[str, Any]:
    if isinstance(example, (tuple, list)) and len(example) == 2 and isinstance(example[0], str):
        return example[0], example[1]
    raise BadRequest(f"the example {example!r:.80} is no (question, response) pair")


def _vector(row: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    return np.array([row.get(name, math.nan) for name in names], dtype=np.float64)


def _useful(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The features that most rows have and that differ between them, one of the answer first."""
    useful = []
    for name in NAMES:
        values = [row[name] for row in rows if name in row]
        if len(values) >= MEASURED * len(rows) and (len(rows) == 1 or len(set(values)) > 1):
            useful.append(name)
    if "answer" in useful and "answer_raw" in useful:
        useful.remove("answer_raw")
    if not useful:
        raise CalibrationError(
            f"none of {', '.join(NAMES)} could be measured in {MEASURED:.0%} of the examples",
            "Pass responses of an engine from with_confidence, with source nodes that have scores.",
        )
    return useful


def _checked(names: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in names if name not in NAMES]
    if isinstance(names, str) or not names or unknown:
        raise BadRequest(f"names={names!r:.80} must be some of {', '.join(NAMES)}")
    return names

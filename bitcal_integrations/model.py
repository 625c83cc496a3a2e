"""load(...) and CalibratedModel: the one place where weights, engine and confidence meet.

The adapters of a framework translate to and from this class; it knows no framework. The model
itself lives behind the engine, where no copy or pickle of a CalibratedModel reaches it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bitcal_integrations.asker import SWAPPING, Asker
from bitcal_integrations.assess import Assessor, find_profile
from bitcal_integrations.engines import _ticket as tickets
from bitcal_integrations.engines import remote
from bitcal_integrations.errors import BadRequest, BitcalError, SaveError
from bitcal_integrations.profile import FILE_NAME, Profile
from bitcal_integrations.types import make_request

if TYPE_CHECKING:
    from bitcal_integrations.quantize.soft_prompt import SoftPrompt
    from bitcal_integrations.quantize.weights import LoadedWeights


def load(
    source: Any = "bitcal-tiny",
    /,
    *,
    model: Any = None,
    weights: Any = "auto",
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    tokenizer: Any = None,
    exclude: str | Sequence[str] = "*lm_head",
    trust_remote_code: bool = False,
    profile: str | os.PathLike[str] | Profile | None = "auto",
    repair: Any = None,
    strict: bool = False,
    deterministic: bool = False,
    max_batch: int | None = None,
    max_queue: int | None = None,
    kv_bytes: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **defaults: Any,
) -> CalibratedModel:
    """A model ready to answer: a hub id, a local folder, a folder saved by us, an object (which
    may also be given as `model=`), or a server, http://..., which serves it under the name `model`.

    `weights` is qint8, qint4, qint2, qfloat8, None, "auto" (as stored), or a {pattern: type} plan,
    in which later patterns win, so the general one comes first. `repair="data-free"` betters qint4
    and qint2 weights while they are made, from the float ones. `profile` is "auto" (beside the
    weights, or in the package), None, a path or a Profile; `strict` refuses a model without one.
    `deterministic` answers one request at a time in float32, bit-equal from run to run. `system`
    and every option of `ask` (temperature, parser, ...) may be given here as this model's default.
    A server takes no option about weights; its own (api, top_logprobs, max_in_flight, timeout,
    max_retries, api_key_env, budget) are those of `engines.remote.connect`.
    """
    if remote.is_url(source):
        held = {"weights": weights, "dtype": dtype, "device": device, "exclude": exclude,
                "revision": revision, "tokenizer": tokenizer, "repair": repair,
                "max_batch": max_batch, "kv_bytes": kv_bytes, "deterministic": deterministic,
                "trust_remote_code": trust_remote_code}  # fmt: skip
        return _served(source, model, (held, max_queue, defaults), profile, strict)
    model = _the_one(source, model)
    _check_load(max_batch, max_queue, kv_bytes)
    if deterministic and max_batch not in (None, 1):
        raise BadRequest(f"deterministic=True answers one by one, not max_batch={max_batch}")
    system, defaults = _check_defaults(defaults)
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.engines import local
    from bitcal_integrations.quantize import soft_prompt
    from bitcal_integrations.quantize.weights import load_weights

    loaded = load_weights(
        model, weights=weights, dtype="float32" if deterministic and dtype == "auto" else dtype,
        device=device, revision=revision, tokenizer=tokenizer, exclude=exclude,
        trust_remote_code=trust_remote_code, progress=progress, repair=repair,
    )  # fmt: skip
    if deterministic and loaded.dtype != "float32":
        raise BadRequest(f"deterministic=True needs dtype float32, not {loaded.dtype!r}")
    parts = fingerprint_parts(loaded)
    chosen = find_profile(profile, model, loaded.weights, loaded.dtype, parts.get("repair"))
    verdict = soft_prompt.beside(model, parts)
    assessor = Assessor(chosen, with_verdict(parts, verdict), strict)
    engine = local.LocalEngine(
        Net(loaded.model, loaded.tokenizer),
        max_batch=1 if deterministic else (max_batch or local.MAX_BATCH),
        max_queue=max_queue or local.MAX_QUEUE,
        kv_bytes=kv_bytes,
    )
    made = CalibratedModel(
        engine, loaded.source, loaded=loaded, system=system, defaults=defaults, assessor=assessor
    )
    made._verdict = verdict
    return made


def with_verdict(parts: dict[str, Any], verdict: SoftPrompt | None) -> dict[str, Any]:
    """The parts of a model that has a tuned verdict prompt in use."""
    return parts if verdict is None else {**parts, "verdict": verdict.digest}


def _served(url: str, name: Any, given: Any, profile: Any, strict: bool) -> CalibratedModel:
    """The model behind a server; it has no folder where a profile could lie."""
    own = remote.own_options(*given)
    system, defaults = _check_defaults(given[-1])
    chosen = find_profile(None if profile == "auto" else profile, None, {}, "")
    engine = remote.connect(url, name, **own)
    try:
        assessor = Assessor(chosen, engine.parts, strict)
    except BitcalError:
        engine.close()
        raise
    return CalibratedModel(engine, engine.name, system=system, defaults=defaults, assessor=assessor)


def _the_one(source: Any, model: Any) -> Any:
    """What is to be loaded; a name of a server's model means nothing without the server."""
    if model is not None and source != "bitcal-tiny":
        raise BadRequest(
            f"model={model!r:.60} is not allowed beside {source!r:.60}: it is the name of a "
            "server's model, load('http://...', model=NAME), or stands alone"
        )
    return source if model is None else model


def fingerprint_parts(loaded: LoadedWeights) -> dict[str, Any]:
    """What identifies a model's behaviour: its weights, the engine and the chat template."""
    template = getattr(loaded.tokenizer, "chat_template", None)
    digest = hashlib.sha256(str(template).encode()).hexdigest()[:16] if template else None
    return {**loaded.parts, "engine": "local", "template": digest}


def _check_load(*positive: int | None) -> None:
    for name, value in zip(("max_batch", "max_queue", "kv_bytes"), positive, strict=True):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise BadRequest(f"{name}={value!r} is not allowed: it must be a whole number above 0")


def _check_defaults(defaults: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    if "prompt" in defaults:
        raise BadRequest("a prompt is not an argument of load: pass it to ask")
    system = defaults.pop("system", None)
    if system is not None and not isinstance(system, str):
        raise BadRequest(f"system={system!r} is not allowed: it must be a string")
    make_request("", **defaults)
    return system, defaults


class CalibratedModel(Asker):
    """A model that answers with a confidence. Use it in a `with` block, or call `close()`."""

    def __init__(
        self,
        engine: tickets.Engine,
        name: str,
        *,
        loaded: LoadedWeights | None = None,
        system: str | None = None,
        defaults: dict[str, Any] | None = None,
        assessor: Assessor | None = None,
    ) -> None:
        super().__init__(engine, name, system, defaults, assessor)
        self._loaded = loaded

    @property
    def profile(self) -> Profile | None:
        """The profile that this model's confidence comes from."""
        return self._assessor.profile

    def use_profile(
        self, profile: str | os.PathLike[str] | Profile | None, strict: bool = False
    ) -> None:
        """Take another profile, from a path or as it is, from here on; None gives it up."""
        if profile == "auto":
            raise BadRequest("profile='auto' is for load: here it is a path, a Profile or None")
        chosen = find_profile(profile, None, {}, "")
        with SWAPPING:
            self._assessor = Assessor(chosen, self.fingerprint_parts, strict)

    def without_profile(self) -> CalibratedModel:
        """The same engine, answering without a profile; closing either closes both."""
        bare = object.__new__(type(self))
        bare.__dict__.update(self.__dict__, _assessor=Assessor(None, {}), _sinks=[])
        return bare

    # ---- the model around it -----------------------------------------------------------------

    def save(self, folder: Any) -> None:
        """Write weights, tokenizer and config to a folder that `load` reads bit-exactly."""
        from bitcal_integrations.quantize import soft_prompt
        from bitcal_integrations.quantize.weights import save_weights

        save_weights(self._weights("saved"), folder)
        if self.profile is not None and not self._assessor.foreign:
            self.profile.save(Path(folder) / FILE_NAME)
        verdict = Path(folder) / soft_prompt.FILE_NAME
        if self._verdict is not None:
            self._verdict.save(verdict)
        else:  # one that a folder of before had would be used
            verdict.unlink(missing_ok=True)

    def memory_report(self) -> dict[str, Any]:
        """Bytes of linears, embeddings and head per weight type, and KV bytes per token."""
        from bitcal_integrations.quantize.weights import memory_report

        return memory_report(self._weights("measured"))

    def _weights(self, verb: str) -> LoadedWeights:
        if self._loaded is None:
            raise SaveError(f"the model {self.name!r} has no weights that could be {verb}")
        return self._loaded

    @property
    def fingerprint_parts(self) -> dict[str, Any]:
        """What identifies this model's behaviour: checkpoint, weight types, dtype, template."""
        if self._loaded is not None:
            return with_verdict(fingerprint_parts(self._loaded), self._verdict)
        return dict(getattr(self._engine, "parts", None) or {"model": self.name})

    @property
    def scores(self) -> str:
        """What its entropies are over: the "full" vocabulary, or the "top_k" of a server."""
        return str(getattr(self._engine, "scores", "full"))

    def report(self) -> dict[str, Any]:
        """Where it came from, its weights and dtype with the reason, and how it batches."""
        out: dict[str, Any] = {"model": self.name}
        if self._loaded is not None:
            kinds = sorted(set(self._loaded.weights.values()))
            out |= {
                "weights": {k: list(self._loaded.weights.values()).count(k) for k in kinds},
                "dtype": self._loaded.dtype,
                "dtype_reason": self._loaded.dtype_reason,
                "device": self._loaded.device,
                "repair": self._loaded.parts.get("repair"),
                "repaired": self._loaded.repaired,
                "recover": self._loaded.parts.get("recover"),
            }
        return {**out, **self._engine.report()}

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer; None for a model without weights in this process."""
        return self._loaded.tokenizer if self._loaded else None

    @property
    def context(self) -> int | None:
        """The tokens that a prompt and its answer may have together, where there is a limit."""
        return getattr(self._engine, "context", None)

    @property
    def closed(self) -> bool:
        """Whether it answers no more."""
        return bool(getattr(self._engine, "closed", False))

    def close(self) -> None:
        """End the worker; requests under way get EngineClosed."""
        self._engine.close()

    def __enter__(self) -> CalibratedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> CalibratedModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CalibratedModel:
        return self  # frameworks copy their configs; the weights exist once

    def __reduce__(self) -> NoReturn:
        raise BitcalError(
            "a loaded model cannot be pickled", "Write it with model.save(folder) and load that."
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


__all__ = ["CalibratedModel", "load"]

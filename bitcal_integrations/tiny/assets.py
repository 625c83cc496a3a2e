"""Where the packaged files of the built-in model lie. Knows paths only: imports nothing heavy."""

from collections.abc import Collection
from pathlib import Path

TINY_DIR = Path(__file__).resolve().parent
MODEL_NAME = "bitcal-tiny"
MODEL_DIR = TINY_DIR / "model"
PROFILE_DIR = TINY_DIR / "profiles"
COUNTRIES_FILE = TINY_DIR / "countries.json"
CARD_FILE = MODEL_DIR / "MODEL_CARD.md"
METRICS_FILE = MODEL_DIR / "metrics.json"
CURVE_FILE = MODEL_DIR / "training.json"


def profile_file(weights: str, dtype: str, repair: str = "") -> Path:
    """Where the profile of one weight type ("none" for float weights) and dtype lies.

    >>> profile_file("qint2", "float32", "data-free").name
    'qint2+data-free-float32.json'
    """
    made = f"{weights}+{repair}" if repair else weights
    return PROFILE_DIR / f"{made}-{dtype}.json"


def shipped_profile(kinds: Collection[str], dtype: str, repair: str = "") -> Path | None:
    """Where the profile of these weight types would lie; None where several are mixed."""
    return None if len(kinds) > 1 else profile_file(next(iter(kinds), "none"), dtype, repair)


def model_folder() -> Path:
    """The folder that `from_pretrained` loads, or an error that says how to make one."""
    if not (MODEL_DIR / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no weights in {MODEL_DIR}: run `python -m bitcal_integrations.tiny.train --out DIR`"
        )
    return MODEL_DIR

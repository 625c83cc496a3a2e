"""Rules for ending runs early, compared on logged runs: what `bitcal stop-bench` computes.

`study(cases)` certifies on one part of the runs and replays all rules on the other. It knows
numbers and answers; logs.py alone asks a model. No benchmark of `bitcal doctor` lies here.
"""

from bitcal_integrations.bench.stops.bitcal_tts import Chunk, Controller, chunks_of
from bitcal_integrations.bench.stops.rules import BASELINES, Case, Setting, end_at
from bitcal_integrations.bench.stops.study import Line, Options, StopStudy, compare, split, study

__all__ = [
    "BASELINES",
    "Case",
    "Chunk",
    "Controller",
    "Line",
    "Options",
    "Setting",
    "StopStudy",
    "chunks_of",
    "compare",
    "end_at",
    "split",
    "study",
]

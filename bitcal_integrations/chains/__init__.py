"""What the chains of every framework share: records of any model's answer, cascades, trails.

`records` makes a Record of what another model or a framework object says; `cascade` follows one
question through a primary and its fallbacks; `trail` follows confidence over the steps of a
chain. It knows no framework, runs no model, and keeps no thread: who drives it may be sync or
async.
"""

from bitcal_integrations.chains.cascade import ON_EXHAUSTED, Attempt, Cascade, Outcome
from bitcal_integrations.chains.records import record_of_bitcal, record_of_logprobs, unknown_record
from bitcal_integrations.chains.trail import AGGREGATES, Trail

__all__ = [
    "AGGREGATES",
    "ON_EXHAUSTED",
    "Attempt",
    "Cascade",
    "Outcome",
    "Trail",
    "record_of_bitcal",
    "record_of_logprobs",
    "unknown_record",
]

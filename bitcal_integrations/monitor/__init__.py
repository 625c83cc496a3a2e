"""In production: keep Records and feedback, watch whether a profile still holds, refit it.

`watch(model, "sqlite:///records.db")` writes every answer, off the request's path; `feedback`
attaches what turned out to be right or wrong, from any process; `Store` reads both.
`watch_drift(model)` tells when what was measured holds no more, `pick_labels` which answers to
label, and `refit_profile` makes a new profile of them. Importing it loads no database library.
"""

from typing import TYPE_CHECKING

from bitcal_integrations.lazy import lazy_names

# Now, because importing the file `watch` later would put it in the place of the function.
from bitcal_integrations.monitor.watch import Watch, watch

if TYPE_CHECKING:
    from bitcal_integrations.monitor.guard import watch_drift
    from bitcal_integrations.monitor.labels import pick_labels
    from bitcal_integrations.monitor.refit import refit_profile
    from bitcal_integrations.monitor.relearn import refit_history
    from bitcal_integrations.monitor.store import (
        Label,
        Pick,
        Store,
        StoredRecord,
        StoreError,
        feedback,
    )

__all__ = [
    "Label",
    "Pick",
    "Store",
    "StoreError",
    "StoredRecord",
    "Watch",
    "feedback",
    "pick_labels",
    "refit_history",
    "refit_profile",
    "watch",
    "watch_drift",
]

_STORE = ("Label", "Pick", "Store", "StoreError", "StoredRecord", "feedback")
_HOME = {
    **dict.fromkeys(_STORE, "store"),
    "pick_labels": "labels",
    "refit_history": "relearn",
    "refit_profile": "refit",
    "watch_drift": "guard",
}
__getattr__, __dir__ = lazy_names(globals(), _HOME)

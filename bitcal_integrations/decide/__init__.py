"""What to do with an answer whose confidence is known: accept it, or what else, and why.

`as_policy` turns a number, a certificate or a router's policy into one object with `decide`;
`certify_threshold` finds a threshold with a promise, `certify_stop` a rule for ending runs early;
`fit_router` learns where a second model helps. Importing it loads numpy and no fitting library.
"""

from bitcal_integrations.decide._certificate import Certificate
from bitcal_integrations.decide._path import labels_needed
from bitcal_integrations.decide.accept import certify_threshold
from bitcal_integrations.decide.logged import LoggedRun
from bitcal_integrations.decide.policy import Policy, as_policy
from bitcal_integrations.decide.route import fit_router
from bitcal_integrations.decide.stop import StopCertificate, StopPlan, StopRule, certify_stop

__all__ = [
    "Certificate",
    "LoggedRun",
    "Policy",
    "StopCertificate",
    "StopPlan",
    "StopRule",
    "as_policy",
    "certify_stop",
    "certify_threshold",
    "fit_router",
    "labels_needed",
]

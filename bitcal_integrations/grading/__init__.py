"""Answer parsers: text -> the span that is the answer. Graders: answer, gold -> right or wrong.

It knows nothing about tokens or models; only the judge asks one, which the caller hands over.
"""

from bitcal_integrations.grading._judge import judge
from bitcal_integrations.grading._names import Absent, name_of
from bitcal_integrations.grading._numbers import NUMBER, as_number
from bitcal_integrations.grading.graders import (
    GRADERS,
    Grader,
    as_grader,
    check_gold,
    contains,
    exact,
    normalise,
    normalised,
    numeric,
)
from bitcal_integrations.grading.parsers import (
    PARSERS,
    Parser,
    as_parser,
    choice,
    first_line,
    gsm8k,
    json_field,
    last_number,
    regex,
    tiny,
)

__all__ = [
    "GRADERS",
    "NUMBER",
    "PARSERS",
    "Absent",
    "Grader",
    "Parser",
    "as_grader",
    "as_number",
    "as_parser",
    "check_gold",
    "choice",
    "contains",
    "exact",
    "first_line",
    "gsm8k",
    "json_field",
    "judge",
    "last_number",
    "name_of",
    "normalise",
    "normalised",
    "numeric",
    "regex",
    "tiny",
]

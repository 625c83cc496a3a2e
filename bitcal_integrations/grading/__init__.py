"""Answer parsers: text -> the span that is the answer. Graders: answer, gold -> right or wrong.

It knows nothing about tokens or models; only the judge asks one, which the caller hands over.
"""

from bitcal_integrations.grading._judge import judge
from bitcal_integrations.grading.graders import (
    GRADERS,
    Grader,
    as_grader,
    contains,
    exact,
    normalise,
    normalised,
    numeric,
)
from bitcal_integrations.grading.parsers import (
    NUMBER,
    PARSERS,
    Parser,
    as_number,
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
    "Grader",
    "Parser",
    "as_grader",
    "as_number",
    "as_parser",
    "choice",
    "contains",
    "exact",
    "first_line",
    "gsm8k",
    "json_field",
    "judge",
    "last_number",
    "normalise",
    "normalised",
    "numeric",
    "regex",
    "tiny",
]

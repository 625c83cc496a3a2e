"""Reports: prepare turns labelled answers into numbers, draw turns numbers into HTML or Markdown.

`prepare_evaluation` computes and draws nothing; `draw_html` and `draw_markdown` draw and compute
nothing. The page is one file that loads nothing, runs no script, and fits a phone.
"""

from bitcal_integrations.report.evaluation import Evaluation
from bitcal_integrations.report.markdown import draw_markdown
from bitcal_integrations.report.page import draw_html
from bitcal_integrations.report.prepare import prepare_evaluation

__all__ = ["Evaluation", "draw_html", "draw_markdown", "prepare_evaluation"]

"""From what a comparison recorded to curves, tables, figures and files. Plain numbers in, no torch."""

from peft_core.report.html import report_html
from peft_core.report.results import results_document

__all__ = ["report_html", "results_document"]

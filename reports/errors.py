"""What goes wrong when a report is made; the command line prints these without a traceback."""

from __future__ import annotations


class ReportError(Exception):
    """The report cannot be made as asked: what is wrong and what to do."""


class NothingToReport(ReportError):
    """Nothing is stored that the report could show; no file is written."""


class Unsuited(Exception):
    """The points declared do not allow what is asked of them, measured or not."""

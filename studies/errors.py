"""The one exception that a user sees as a plain message: what is wrong, where, and what to do."""

from __future__ import annotations


class StudyError(Exception):
    """Bad input or an unusable environment. The command line prints it without a traceback and exits with 2."""


class UnknownStudy(StudyError):
    """A name that is no built-in study's."""

"""Homes made by the real command line."""

from tests.homes import tiny

__all__ = ["tiny"]

"""Homes made by the real command line."""

from tests.homes import copy, long, tiny

__all__ = ["copy", "long", "tiny"]

"""Latchkey: the project that ties the apps together."""

__version__ = "0.1.0"

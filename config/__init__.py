"""The Django project: settings, URLs, startup checks and commands."""

__version__ = "0.1.0"

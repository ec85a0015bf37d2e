"""The views of the API, for checks at startup."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.urls import get_resolver


def api_views(patterns: Any = None, prefix: str = "") -> Iterator[Any]:
    """Yield an instance of each DRF view below `API_ROOT`, with the options of its route."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        path = f"{prefix}{pattern.pattern}"
        if hasattr(pattern, "url_patterns"):
            yield from api_views(pattern.url_patterns, path)
            continue
        view: Any = pattern.callback
        if path.startswith(settings.API_ROOT) and hasattr(view, "cls"):
            yield view.cls(**view.initkwargs)

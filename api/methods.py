"""The methods of a route, known before its view is called."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.views import View
from rest_framework.views import APIView


@functools.cache
def allowed_methods(view: Callable[..., Any]) -> list[str] | None:
    """
    Return a route's methods: the actions of a viewset, or the handlers of a class-based view.

    Return None for a function, and for a class that dispatches by itself: these decide in the view.
    """
    view_class: Any = getattr(view, "cls", None) or getattr(view, "view_class", None)
    if view_class is None or not is_stock(view_class, "dispatch", "options"):
        return None
    handlers = getattr(view, "actions", None) or dir(view_class)
    methods = {name for name in method_names(view) if name in handlers}
    methods |= {"options"} | ({"head"} if "get" in methods else set())
    return sorted(method.upper() for method in methods)


def is_stock(view_class: type, *names: str) -> bool:
    """Return whether a class has these methods of Django's or DRF's views, decorated or not."""
    stock = {getattr(base, name) for base in (View, APIView) for name in names}
    return all(inspect.unwrap(getattr(view_class, name)) in stock for name in names)


def method_names(view: Any) -> list[str]:
    """Return the methods that a class-based view accepts, in lower case."""
    view_class = getattr(view, "cls", None) or view.view_class
    options = getattr(view, "initkwargs", None) or getattr(view, "view_initkwargs", {})
    names: list[str] = options.get("http_method_names", view_class.http_method_names)
    return names


def serve_head(request: HttpRequest, view: Callable[..., Any]) -> None:
    """Let a view that lists GET alone handle HEAD, such as a function with `@api_view`."""
    if request.method == "HEAD" and "head" not in method_names(view):
        request.method = "GET"  # The server removes the body.

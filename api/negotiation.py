from collections.abc import Iterable
from contextlib import suppress

from django.http import Http404
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JSONOnlyNegotiation(DefaultContentNegotiation):
    """
    Respond with the first renderer of a view, which is JSON, and never with a 406.

    A view that lists several renderers lets `Accept` select one of them.
    """

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the parser of a body's media type; a client that sends a wildcard has none."""
        is_wildcard = "*" in (request.content_type or "")
        return None if is_wildcard else super().select_parser(request, parsers)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        first, *others = renderers
        selected = first, first.media_type
        if others:
            with suppress(Http404, NotAcceptable):
                selected = super().select_renderer(request, [first, *others], format_suffix)
        return selected

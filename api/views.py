"""The API's description and its interactive page, as plain views: nothing of the API applies."""

import functools

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import View
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer

from api.middleware import PAGE_POLICY


class SchemaView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(schema(), content_type="application/json")


class DocsView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        page = render(request, "api/docs.html")
        page.headers["Content-Security-Policy"] = PAGE_POLICY
        return page


@functools.cache
def schema() -> bytes:
    """Describe the API in OpenAPI 3.1; it can't change while the process runs."""
    document = SchemaGenerator().get_schema(public=True)
    return bytes(OpenApiJsonRenderer().render(document, renderer_context={}))

"""The API's index, its OpenAPI document and Swagger UI: plain views without limits."""

import functools

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.views import View
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer

from api.policies import PAGE_POLICY


class IndexView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(
            {
                "service": settings.SERVICE_NAME,
                "version": settings.VERSION,
                "documentation": reverse("docs"),
                "schema": reverse("schema"),
            }
        )


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
    """Return the OpenAPI 3.1 document, which is constant for the process."""
    with translation.override(settings.LANGUAGE_CODE):  # of no request
        document = SchemaGenerator().get_schema(public=True)
    return bytes(OpenApiJsonRenderer().render(document, renderer_context={}))

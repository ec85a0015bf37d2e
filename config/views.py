"""The start page, for someone who opens the service in a browser."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import View

from api.middleware import PAGE_POLICY


class StartView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "title": settings.SPECTACULAR_SETTINGS["TITLE"],
            "version": settings.VERSION,
            # In production the path of the console may be private.
            "links_console": settings.DEBUG and settings.ADMIN_ENABLED,
        }
        page = render(request, "config/start.html", context)
        page.headers["Content-Security-Policy"] = PAGE_POLICY
        return page

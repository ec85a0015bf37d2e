"""Pages of the project: the start page, and in development the files of users."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views import View
from django.views.static import serve


class StartView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "title": settings.PROJECT_NAME,
            "version": settings.VERSION,
            # In production the path of the console may be private.
            "links_console": settings.DEBUG and settings.ADMIN_ENABLED,
            "has_mailbox": bool(settings.MAILBOX),
        }
        return render(request, "config/start.html", context)


def media(request: HttpRequest, path: str, document_root: str) -> HttpResponseBase:
    """Serve a file of a user, whose scripts must not run at the origin of the console."""
    response: HttpResponseBase = serve(request, path, document_root)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response

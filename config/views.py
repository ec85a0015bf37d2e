"""Pages of the project: the start page, and in development the files of users and an example."""

import mimetypes

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views import View
from django.views.decorators.http import require_safe
from django.views.static import serve

EXAMPLE = settings.BASE_DIR / "examples/browser"
CLIENT = settings.BASE_DIR / "docs/clients/latchkey.js"
# One page for all: emailed links lead to these, if FRONTEND_URL is the URL of the example.
PAGES = ["", "verify-email", "reset-password", "register", "invite"]


class StartView(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        context = {
            "title": settings.PROJECT_NAME,
            "version": settings.VERSION,
            # In production the path of the console may be private.
            "links_console": settings.DEBUG and settings.ADMIN_ENABLED,
            "has_mailbox": bool(settings.MAILBOX),
            "has_example": settings.DEBUG and EXAMPLE.exists(),
        }
        return render(request, "config/start.html", context)


def media(request: HttpRequest, path: str, document_root: str) -> HttpResponseBase:
    """Serve a file of a user, whose scripts must not run at the origin of the console."""
    response: HttpResponseBase = serve(request, path, document_root)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


@require_safe
def example(request: HttpRequest, name: str | None = None) -> HttpResponseBase:
    """Serve the example of a front end, and its client, in development."""
    if not settings.DEBUG:
        raise Http404
    if name is None:
        return redirect("example")
    files = {path.name: path for path in [*EXAMPLE.glob("*.*"), CLIENT]}
    path = files.get("index.html" if name in PAGES else name)
    if path is None:  # A name from the URL never becomes a path.
        raise Http404
    kind, _ = mimetypes.guess_type(path.name)
    return HttpResponse(path.read_bytes(), kind, headers={"Cache-Control": "no-cache"})

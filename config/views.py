"""The start page, for people who open the service in a browser."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import View


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

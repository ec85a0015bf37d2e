from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from api.views import DocsView, IndexView, SchemaView
from config.views import StartView

api: list[URLPattern | URLResolver] = [
    path("", include("catalog.urls")),
    path("", include("accounts.urls")),
    path("", include("health.urls")),
    path("schema", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(), name="docs"),
]
urlpatterns = [
    path("", StartView.as_view()),
    path("api/v1", IndexView.as_view(), name="index"),
    path("api/v1/", include(api)),
    path("", include("health.urls")),
]
if settings.ADMIN_ENABLED:
    urlpatterns.append(path(settings.ADMIN_PATH, admin.site.urls))

from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from api.views import DocsView, IndexView, SchemaView
from config.views import StartView, example, media
from ops.mailbox import MailboxView, MailHTMLView, MailView

api: list[URLPattern | URLResolver] = [
    path("", include("catalog.urls")),
    path("", include("accounts.urls")),
    path("", include("health.urls")),
    path("schema", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(), name="docs"),
]
urlpatterns = [
    path("", StartView.as_view()),
    path(settings.API_PATH.rstrip("/"), IndexView.as_view(), name="index"),
    path(settings.API_PATH, include(api)),
    path("", include("health.urls")),
    path("mail", MailboxView.as_view(), name="mailbox"),
    path("mail/<str:name>", MailView.as_view(), name="mail"),
    path("mail/<str:name>/html", MailHTMLView.as_view(), name="mail-html"),
    path("example", example),
    path("example/", example, {"name": ""}, name="example"),
    path("example/<str:name>", example),
    # With DEBUG only.
    *static(settings.MEDIA_URL, media, document_root=settings.MEDIA_ROOT),
]
if not settings.FRONTEND_URL:
    urlpatterns.append(path("account/", include("accounts.pages")))
if settings.ADMIN_ENABLED:
    urlpatterns.append(path(settings.ADMIN_PATH, admin.site.urls))

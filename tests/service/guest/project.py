"""The routes of the project with those of the app, at two versions, and its pages."""

from django.conf import settings
from django.urls import include, path

from config import urls
from tests.service.guest import views

urlpatterns = [
    *urls.urlpatterns,
    path(f"{settings.API_PATH}guest/", include("tests.service.guest.urls")),
    path(f"{settings.API_ROOT}v2/class", views.ClassView.as_view()),
    path("about/", views.AboutView.as_view()),
    path("map/", views.own_policy),
    path("members/", views.own_error),
    path("moved/", views.missing),
    path("broken/", views.broken),
]

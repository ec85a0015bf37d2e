from django.urls import include, path

from config import urls
from tests.rig.search import SearchedViewSet

urlpatterns = [
    path("searched", SearchedViewSet.as_view({"get": "list"})),
    path("api/v1/", include("tests.articles.urls")),
    *urls.urlpatterns,
]

"""The routes of the app, as an owner includes them below `/api/v1/`."""

from django.urls import include, path
from django.views.generic import DetailView
from django.views.static import serve
from rest_framework.routers import DefaultRouter
from rest_framework.urlpatterns import format_suffix_patterns

from tests.service.guest import photos, views
from tests.service.guest.models import Order

router = DefaultRouter()
router.register(r"snippets", views.SnippetViewSet, basename="snippet")
router.register(r"customers", views.CustomerViewSet)
router.register(r"orders", views.OrderViewSet)
router.register(r"restaurants", views.RestaurantViewSet)

functions = [
    path("snippets/", views.function_snippets),
    path("list", views.SnippetList.as_view()),
]
urlpatterns = [
    path("plain/snippets/", views.plain_snippets),
    path("plain/snippets/<int:pk>/", views.plain_snippet),
    path("functions/", include(format_suffix_patterns(functions))),
    path("pages/number", views.PagedOrders.as_view(pagination_class=views.FewerPages)),
    path("pages/offset", views.PagedOrders.as_view(pagination_class=views.Offsets)),
    path("pages/cursor", views.PagedOrders.as_view(pagination_class=views.Cursors)),
    path("pages/none", views.PagedOrders.as_view(pagination_class=None)),
    path("pages/names", views.NamesView.as_view()),
    path("files/<path:path>", serve, {"document_root": "/nowhere"}),
    path("generic/<int:pk>", DetailView.as_view(model=Order)),
    path("forgetful", views.ForgetfulView.as_view()),
    path("errors/<name>", views.ErrorsView.as_view()),
    path("plain/errors/<name>", views.plain_errors),
    path("texts/<name>", views.texts),
    path("async", views.async_view),
    path("async/class", views.AsyncView.as_view()),
    path("internal", views.internal),
    path("class", views.ClassView.as_view()),
    path("class/get", views.ClassView.as_view(http_method_names=["get"])),
    path("class/dispatch", views.DispatchingView.as_view()),
    path("class/options", views.DescribedView.as_view()),
    path("cached", views.CachedView.as_view()),
    path("throttled", views.ThrottledView.as_view()),
    path("scoped", views.ScopedView.as_view()),
    path("key", views.KeyView.as_view()),
    path("basic", views.BasicView.as_view()),
    path("rendered", views.RenderedView.as_view()),
    path("orders/<int:pk>/photo", photos.PhotoView.as_view()),
    path("uploads/function", photos.function),
    path("uploads/plain", photos.plain),
    path("uploads/raw/<filename>/", photos.RawView.as_view()),
    path("uploads/actions/", photos.ActionViewSet.as_view({"post": "create", "put": "replace"})),
    path("uploads/small", photos.SmallView.as_view()),
    path("parsed", views.ParsedView.as_view()),
    path("", include(router.urls)),
]

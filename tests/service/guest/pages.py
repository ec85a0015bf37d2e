"""The same routes with handlers for errors, as Django documents them."""

from tests.service.guest.project import urlpatterns

__all__ = ["urlpatterns"]
handler404 = "tests.service.guest.views.page_not_found"
handler500 = "tests.service.guest.views.server_error"

from rest_framework.routers import SimpleRouter

from accounts.views import AuthViewSet, EventViewSet, SessionViewSet, UserViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("auth/sessions", SessionViewSet, "session")
router.register("auth/events", EventViewSet, "event")
router.register("auth", AuthViewSet, "auth")
router.register("users", UserViewSet, "user")

urlpatterns = router.urls

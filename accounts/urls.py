from rest_framework.routers import SimpleRouter

from accounts.views.api_tokens import ApiTokenViewSet
from accounts.views.auth import AuthViewSet
from accounts.views.factors import FactorViewSet
from accounts.views.lists import EventViewSet, SessionViewSet
from accounts.views.passkeys import PasskeySignInViewSet, PasskeyViewSet
from accounts.views.users import UserViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("auth/sessions", SessionViewSet, "session")
router.register("auth/events", EventViewSet, "event")
router.register("auth/passkey", PasskeySignInViewSet, "passkey-sign-in")
router.register("auth", AuthViewSet, "auth")
router.register("users/me/tokens", ApiTokenViewSet, "api-token")
router.register("users/me/passkeys", PasskeyViewSet, "passkey")
router.register("users/me", FactorViewSet, "factor")
router.register("users", UserViewSet, "user")

urlpatterns = router.urls

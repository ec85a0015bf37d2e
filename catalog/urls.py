from rest_framework.routers import SimpleRouter

from catalog.views import ProductViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("product", ProductViewSet, "product")

urlpatterns = router.urls

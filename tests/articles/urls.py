from rest_framework.routers import SimpleRouter

from tests.articles.views import ArticleViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("articles", ArticleViewSet, "article")

urlpatterns = router.urls

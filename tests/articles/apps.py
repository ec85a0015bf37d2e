from collections.abc import Iterator
from typing import Any

from django.apps import AppConfig


class ArticlesConfig(AppConfig):
    name = "tests.articles"

    def export(self, user: Any) -> Iterator[tuple[str, Any]]:
        """Yield what `GET /users/me/export` has of the user's articles."""
        from api.exports import rows
        from tests.articles.models import Article
        from tests.articles.serializers import ArticleSerializer

        owned = Article.objects.filter(owner=user).order_by("created_at", "pk")
        yield "articles", rows(owned, ArticleSerializer)

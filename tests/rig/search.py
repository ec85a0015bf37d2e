"""A searchable list of articles, for the tests of `api.search`."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet

from tests.articles.models import Article
from tests.articles.views import ArticleViewSet


class SearchedQuerySet(QuerySet[Article]):
    def search_conditions(self, text: str) -> tuple[Q, Q] | None:
        """Every word must occur in the title. The index looks up the first word."""
        words = text.split()
        if not all(word.isalpha() for word in words):
            raise ValidationError("A word has letters only.", code="invalid")
        match = Q(*[Q(title__contains=word) for word in words])
        return (match, Q(title__contains=words[0])) if words else None


class SearchedViewSet(ArticleViewSet):
    schema = None

    def get_queryset(self) -> SearchedQuerySet:
        return SearchedQuerySet(Article)

    def filter_queryset(self, queryset: Any) -> Any:
        rows = super().filter_queryset(queryset)
        self.search_conditions = rows.search_conditions(self.request.query_params["search"])
        return rows

from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import viewsets
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from tests.articles.models import Article
from tests.articles.permissions import IsOwnerOrStaffOrReadOnly
from tests.articles.serializers import NO_FILTERS, ArticleFilterSerializer, ArticleSerializer


@extend_schema_view(
    list=extend_schema(
        summary="List articles",
        description="Return a page of articles, with filter and ordering.",
        parameters=[ArticleFilterSerializer],
    ),
    create=extend_schema(
        summary="Create an article", description="Create an article. The caller is its owner."
    ),
    retrieve=extend_schema(summary="Get an article", description="Return one article."),
    partial_update=extend_schema(
        summary="Change an article",
        description="Change fields of an article. Only its owner and permitted staff may do this.",
    ),
    destroy=extend_schema(
        summary="Delete an article",
        description="Delete an article. Only its owner and permitted staff may do this.",
    ),
)
class ArticleViewSet(viewsets.ModelViewSet[Article]):
    serializer_class = ArticleSerializer
    permission_classes = [IsAuthenticatedOrReadOnly, IsOwnerOrStaffOrReadOnly]
    allows_api_tokens = True  # Without this line a request with an API token gets a 403.
    lookup_value_converter = "int"
    http_method_names = ["get", "head", "post", "patch", "delete"]

    def get_queryset(self) -> QuerySet[Article]:
        rows = Article.objects.all()
        # The lock prevents a concurrent deletion, after which save() would create the row again.
        return rows.select_for_update() if self.action == "partial_update" else rows

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.action != "list":
            return queryset
        filters = NO_FILTERS
        if self.request.query_params:
            serializer = ArticleFilterSerializer(data=self.request.query_params.dict())
            serializer.is_valid(raise_exception=True)
            filters = serializer.validated_data
        ordering = filters["ordering"]
        queryset = queryset.order_by(ordering, "-pk" if ordering.startswith("-") else "pk")
        if "owner" in filters:
            queryset = queryset.filter(owner=filters["owner"])
        return queryset

    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().partial_update(request, *args, **kwargs)

    def perform_create(self, serializer: BaseSerializer[Article]) -> None:
        try:
            serializer.save(owner=self.request.user)
        except IntegrityError as error:
            # The owner was deleted after authentication.
            raise AuthenticationFailed(code="token_not_valid") from error

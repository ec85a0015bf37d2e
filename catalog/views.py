from typing import Any

from django.db import IntegrityError, transaction
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import viewsets
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from catalog.models import Product, ProductQuerySet
from catalog.permissions import IsOwnerOrStaffOrReadOnly
from catalog.serializers import NO_FILTERS, ProductFilterSerializer, ProductSerializer


@extend_schema_view(list=extend_schema(parameters=[ProductFilterSerializer]))
class ProductViewSet(viewsets.ModelViewSet[Product]):
    """What users own, as an example of your own resources."""

    serializer_class = ProductSerializer
    permission_classes = [IsAuthenticatedOrReadOnly, IsOwnerOrStaffOrReadOnly]
    lookup_value_converter = "int"
    http_method_names = ["get", "head", "post", "patch", "delete"]

    def get_queryset(self) -> ProductQuerySet:
        # The text of the search stays in the database: it is as long as the product.
        products = Product.objects.defer("search_text")
        # A row that is locked while it changes can't be deleted in between, and saved back to life.
        return products.select_for_update() if self.action == "partial_update" else products

    def filter_queryset(self, queryset: ProductQuerySet) -> ProductQuerySet:  # type: ignore[override]
        if self.action != "list":
            return queryset
        filters = NO_FILTERS
        if self.request.query_params:
            serializer = ProductFilterSerializer(data=self.request.query_params.dict())
            serializer.is_valid(raise_exception=True)
            filters = serializer.validated_data
        ordering = filters["ordering"]
        queryset = queryset.order_by(ordering, "-pk" if ordering.startswith("-") else "pk")
        if "owner" in filters:
            queryset = queryset.filter(owner=filters["owner"])
        self.search_conditions = queryset.search_conditions(filters["search"])
        return queryset

    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change a product of one's own."""
        return super().partial_update(request, *args, **kwargs)

    def perform_create(self, serializer: BaseSerializer[Product]) -> None:
        try:
            serializer.save(owner=self.request.user)
        except IntegrityError as error:
            # The owner was deleted since the token was looked at.
            raise AuthenticationFailed(code="token_not_valid") from error

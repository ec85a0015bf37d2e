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


@extend_schema_view(
    list=extend_schema(
        summary="List products",
        description="Return a page of products, with search, filter and ordering.",
        parameters=[ProductFilterSerializer],
    ),
    create=extend_schema(
        summary="Create a product", description="Create a product. The caller is its owner."
    ),
    retrieve=extend_schema(summary="Get a product", description="Return one product."),
    partial_update=extend_schema(
        summary="Change a product",
        description="Change fields of a product. Only its owner and permitted staff may do this.",
    ),
    destroy=extend_schema(
        summary="Delete a product",
        description="Delete a product. Only its owner and permitted staff may do this.",
    ),
)
class ProductViewSet(viewsets.ModelViewSet[Product]):
    """Products, an example of your own resources."""

    serializer_class = ProductSerializer
    permission_classes = [IsAuthenticatedOrReadOnly, IsOwnerOrStaffOrReadOnly]
    allows_api_tokens = True  # Without this line a request with an API token gets a 403.
    lookup_value_converter = "int"
    http_method_names = ["get", "head", "post", "patch", "delete"]

    def get_queryset(self) -> ProductQuerySet:
        # The search text is as long as the product, and no response contains it.
        rows = Product.objects.all().defer("search_text")
        # The lock prevents a concurrent deletion, after which save() would create the row again.
        return rows.select_for_update() if self.action == "partial_update" else rows

    def filter_queryset(self, queryset: ProductQuerySet) -> ProductQuerySet:  # type: ignore[override]  # narrower
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
        return super().partial_update(request, *args, **kwargs)

    def perform_create(self, serializer: BaseSerializer[Product]) -> None:
        try:
            serializer.save(owner=self.request.user)
        except IntegrityError as error:
            # The owner was deleted after authentication.
            raise AuthenticationFailed(code="token_not_valid") from error

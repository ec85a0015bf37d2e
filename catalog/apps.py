from collections.abc import Iterator
from typing import Any

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "catalog"

    def export(self, user: Any) -> Iterator[tuple[str, Any]]:
        """Yield what `GET /users/me/export` has of the user's products."""
        from api.exports import rows
        from catalog.models import Product
        from catalog.serializers import ProductSerializer

        products = Product.objects.filter(owner=user).defer("search_text")
        yield "products", rows(products.order_by("created_at", "pk"), ProductSerializer)

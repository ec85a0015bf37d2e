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

        owned = Product.objects.filter(owner=user).order_by("created_at", "pk")
        yield "products", rows(owned.defer("search_text"), ProductSerializer)

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Upper
from django.utils import timezone

LARGEST_AMOUNT = 2**31 - 1


class ProductQuerySet(models.QuerySet["Product"]):
    def matching(self, words: list[str]) -> "ProductQuerySet":
        """Select products with every word somewhere in the title or the description."""
        products = self
        for word in words:
            products = products.filter(
                models.Q(title__icontains=word) | models.Q(description__icontains=word)
            )
        return products


class Product(models.Model):
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="products", db_index=False
    )
    title = models.CharField(max_length=200)
    description = models.TextField(max_length=10_000, blank=True, default="")
    amount = models.IntegerField(
        validators=[MinValueValidator(0), MaxValueValidator(LARGEST_AMOUNT)]
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ProductQuerySet.as_manager()

    class Meta:
        indexes = [
            # One for each ordering; read backwards it serves the opposite one as well.
            models.Index(fields=["created_at", "id"], name="catalog_product_created_at"),
            models.Index(fields=["title", "id"], name="catalog_product_title"),
            models.Index(fields=["amount", "id"], name="catalog_product_amount"),
            models.Index(fields=["owner", "created_at", "id"], name="catalog_product_owner"),
            # Django's icontains compares in upper case.
            GinIndex(OpClass(Upper("title"), "gin_trgm_ops"), name="catalog_product_title_words"),
            GinIndex(
                OpClass(Upper("description"), "gin_trgm_ops"), name="catalog_product_text_words"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount__gte=0), name="catalog_product_amount_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.title

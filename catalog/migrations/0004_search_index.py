import django.contrib.postgres.indexes
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models

import catalog.models


class Migration(migrations.Migration):
    """Index the search text and each ordering of an owner's products, without a lock."""

    atomic = False

    dependencies = [("catalog", "0003_search_text")]

    operations = [
        AddIndexConcurrently(
            "product",
            models.Index(fields=["owner", "title", "id"], name="catalog_product_owner_title"),
        ),
        AddIndexConcurrently(
            "product",
            models.Index(fields=["owner", "amount", "id"], name="catalog_product_owner_amount"),
        ),
        AddIndexConcurrently(
            "product",
            django.contrib.postgres.indexes.GinIndex(
                catalog.models.Trigrams("search_text"), name="catalog_product_search"
            ),
        ),
        RemoveIndexConcurrently("product", "catalog_product_title_words"),
        RemoveIndexConcurrently("product", "catalog_product_text_words"),
    ]

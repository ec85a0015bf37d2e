from django.conf import settings
from django.db import models


class Product(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="products")
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    amount = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "stock"
        ordering = ["-created_at"]

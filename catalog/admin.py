from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from catalog.models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["title", "amount", "owner", "created_at"]
    list_select_related = ["owner"]
    search_fields = ["search_text"]
    search_help_text = "Words of the title or the description, of three letters or more"
    autocomplete_fields = ["owner"]
    readonly_fields = ["created_at", "updated_at"]
    ordering = ["-created_at", "-id"]
    # The columns with an index.
    sortable_by = ["title", "amount", "created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        return super().get_queryset(request).defer("search_text")

from django.contrib import admin

from catalog.models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["title", "amount", "owner", "created_at"]
    list_select_related = ["owner"]
    search_fields = ["title", "description"]
    search_help_text = "Words of the title or the description"
    autocomplete_fields = ["owner"]
    readonly_fields = ["created_at", "updated_at"]
    ordering = ["-created_at", "-id"]
    # By what an index serves, however many there are.
    sortable_by = ["title", "amount", "created_at"]

from django.contrib import admin

from tests.articles.models import Article


@admin.register(Article)
class ArticleAdmin(admin.ModelAdmin):
    list_display = ["title", "amount", "owner", "created_at"]
    list_select_related = ["owner"]
    autocomplete_fields = ["owner"]
    readonly_fields = ["created_at", "updated_at"]
    ordering = ["-created_at", "-id"]
    # The columns with an index.
    sortable_by = ["title", "amount", "created_at"]

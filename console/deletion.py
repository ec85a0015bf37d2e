"""The deletion pages of the console, which list a bounded number of rows."""

from collections import Counter
from typing import Any

from django.contrib import admin
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.admin.utils import NestedObjects, quote
from django.db import router
from django.db.models import CASCADE, Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from api import pagination

MAXIMUM_LISTED = 20  # rows of each relation on a deletion page


class DeletedObjects(NestedObjects):
    """The rows that a deletion removes: some rows and the count of each relation."""

    def __init__(self, rows: list[Any]) -> None:
        super().__init__(using=router.db_for_write(type(rows[0])), origin=rows)
        self.numbers: Counter[type[Model]] = Counter()
        self.listed: Counter[type[Model]] = Counter()
        self.collect(rows)
        self.numbers[type(rows[0])] += len(rows)
        roots: Any = self.edges
        del roots[None][MAXIMUM_LISTED:]

    def related_objects(self, related_model: Any, related_fields: Any, objs: Any) -> Any:
        rows = super().related_objects(related_model, related_fields, objs)
        if related_fields[0].remote_field.on_delete is CASCADE:
            self.numbers[related_model] += pagination.bounded_count(rows)
        return rows[:MAXIMUM_LISTED]

    def describe(self, site: admin.AdminSite) -> list[Any]:
        """Return the listed rows as a nested list, and a line for the other rows of each model."""

        def text(row: Model) -> str:
            self.listed[type(row)] += 1
            kind = capfirst(str(row._meta.verbose_name))
            if not site.is_registered(type(row)):
                return f"{kind}: {row}"
            url = reverse(admin_urlname(row._meta, "change"), args=[quote(row.pk)])  # type: ignore[arg-type]  # stubs
            return format_html('{}: <a href="{}">{}</a>', kind, url, row)

        lines: list[Any] = self.nested(text)
        for model, number in self.numbers.items():
            if left := number - self.listed[model]:
                more = "more than " if number > pagination.MAXIMUM_COUNT else ""
                lines.append(f"and {more}{left:,} more {model._meta.verbose_name_plural}")
        return lines

    def counts(self) -> dict[str, str]:
        return {
            str(model._meta.verbose_name_plural): (
                f"more than {pagination.MAXIMUM_COUNT:,}"
                if number > pagination.MAXIMUM_COUNT
                else f"{number:,}"
            )
            for model, number in self.numbers.items()
            if number
        }

    def undeletable(self, request: HttpRequest, site: admin.AdminSite) -> set[str]:
        """Return the names of the models whose rows the user has no permission to delete."""
        collected: Any = self.model_objs
        return {
            str(model._meta.verbose_name)
            for model, rows in collected.items()
            if site.is_registered(model)
            and not all(
                site.get_model_admin(model).has_delete_permission(request, row) for row in rows
            )
        }

"""
Rules for the console's pages of every model, including your own.

`ConsoleSite.register` makes `BoundedAdmin` a base class of each model's admin. A form changes only
the fields that its user changed, on the current row. A page lists a bounded number of rows.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import actions
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.admin.utils import NestedObjects, quote
from django.core.exceptions import BadRequest, FieldDoesNotExist, ValidationError
from django.core.paginator import Paginator
from django.db import router, transaction
from django.db.models import CASCADE, Model, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.forms.models import BaseModelFormSet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from api import pagination
from api.search import find_by_index

MAXIMUM_SELECTED = 1_000  # rows of one action
MAXIMUM_CHOICES = 100  # of a filter
MAXIMUM_LISTED = 20  # rows of each relation on a deletion page
MAXIMUM_WORDS = 6  # of a search
# The lookups of filters, date hierarchies and links. Others, such as a regular expression or one
# that the column's type does not support, fail in the database or read the whole table.
LOOKUPS = frozenset({"exact", "isnull", "in", "gt", "gte", "lt", "lte", "year", "month", "day"})


def combine(mixin: type[Any], base: type[Any]) -> type[Any]:
    return type(base.__name__, (mixin, base), {"__module__": base.__module__})


def lock(rows: QuerySet[Any]) -> None:
    """Lock these rows against other writers until the end of the transaction."""
    manager = rows.model._base_manager
    keys = rows.order_by().values("pk")
    list(manager.select_for_update(no_key=True).filter(pk__in=keys).order_by("pk"))


class ChangedFieldsForm(forms.ModelForm):
    """
    A form that changes only the fields that its user changed.

    Each field has a hidden input with its initial value. A concurrent change by the API is
    therefore neither considered a change of the form nor overwritten. Rules between fields belong
    to the model's `clean`, which validates the final row. A form without hidden inputs, such as
    one from a script, is compared with the current row.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            return
        names = [self.add_initial_prefix(name) for name in self.fields]
        start = self.add_initial_prefix("")
        is_from_page = not self.is_bound or any(key.startswith(start) for key in self.data)
        for field in self.fields.values():
            field.show_hidden_initial = is_from_page and can_show_initial(field)
        if self.is_bound and is_from_page:
            # After a validation error Django renders the initial value again only if the data has
            # its name. Fields with several inputs or no selection do not send it.
            self.data: Any = self.data.copy()
            for name in names:
                self.data.setlistdefault(name)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.instance._state.adding:
            for name in cleaned.keys() & self.stored_fields - set(self.changed_data):
                value = getattr(self.instance, name)
                cleaned[name] = value.all() if hasattr(value, "all") else value
        return cleaned

    @cached_property
    def stored_fields(self) -> set[str]:
        options = self.instance._meta
        return {field.name for field in (*options.fields, *options.many_to_many)}


def can_show_initial(field: forms.Field) -> bool:
    """Return whether the page may contain a field's value: no hash, and no hidden password."""
    is_file = isinstance(field, forms.FileField)  # Only an upload changes it.
    return not (field.disabled or is_file or isinstance(field.widget, forms.PasswordInput))


class LockingFormSet(BaseModelFormSet):
    """A formset that locks its rows until they are saved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_bound:
            lock(self.get_queryset())


class BoundedPaginator(Paginator):
    """A paginator with a bounded count; a search or a filter finds rows beyond it."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # stubs
        return min(pagination.bounded_count(rows), pagination.MAXIMUM_COUNT)


class BoundedRelatedFilter(admin.RelatedFieldListFilter):
    """A filter by a related row, with a bounded number of choices."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.lookup_choices) == MAXIMUM_CHOICES:
            self.title = f"{self.title} (the first {MAXIMUM_CHOICES})"

    def field_choices(
        self, field: Any, request: HttpRequest, model_admin: admin.ModelAdmin
    ) -> list[tuple[Any, Any]]:
        ordering = self.field_admin_ordering(field, request, model_admin)
        rows = field.related_model._default_manager.order_by(*ordering)[:MAXIMUM_CHOICES]
        return [(getattr(row, field.target_field.attname), str(row)) for row in rows]


admin.FieldListFilter.register(
    lambda field: field.remote_field, BoundedRelatedFilter, take_priority=True
)


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


class BoundedAdmin(admin.ModelAdmin):
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # Facets count the whole table for each choice.

    # Lists

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Reject an invalid filter or page, for which Django shows the whole list."""
        try:
            return super().get_changelist_instance(request)
        except IncorrectLookupParameters as error:
            raise BadRequest from error

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        is_known = LOOKUPS.issuperset(comparisons(self.model, lookup))
        return is_known and super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search with the queryset's `search_conditions` if it has them, as the API does."""
        if len(search_term.split()) > MAXIMUM_WORDS:
            raise BadRequest
        if not hasattr(queryset, "search_conditions"):
            return super().get_search_results(request, queryset, search_term)
        try:
            conditions = queryset.search_conditions(search_term)
        except ValidationError as error:
            messages.warning(request, error.message)
            return queryset.none(), False
        if conditions is None:
            return queryset, False
        found = find_by_index(queryset, conditions)
        if found.is_capped:
            messages.warning(request, "Too many rows match, so some are not shown. Add a word.")
        return queryset.filter(pk__in=found.pks), False

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Reject an action on more than `MAXIMUM_SELECTED` rows."""
        is_across = request.POST.get("select_across", "0") != "0"
        if is_across and self.get_paginator(request, queryset, 1).count > MAXIMUM_SELECTED:
            text = f"An action is limited to {MAXIMUM_SELECTED:,} rows. No row was changed."
            messages.error(request, text)
            return None
        return super().response_action(request, queryset, *args, **kwargs)

    # Changes

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Lock and read the row if the request changes or deletes it."""
        row = super().get_object(request, object_id, from_field)
        is_locking = request.method == "POST" and transaction.get_connection().in_atomic_block
        if row is None or not is_locking:
            return row
        lock(self.model._base_manager.filter(pk=row.pk))
        return super().get_object(request, object_id, from_field)

    def get_form(
        self,
        request: HttpRequest,
        obj: Any = None,
        change: bool = False,
        **kwargs: Any,
    ) -> type[Any]:
        form = super().get_form(request, obj, change=change, **kwargs)
        return combine(ChangedFieldsForm, form) if change else form

    def get_inline_instances(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        inlines = super().get_inline_instances(request, obj)
        for inline in inlines:
            inline.form = combine(ChangedFieldsForm, inline.form)
            inline.formset = combine(LockingFormSet, inline.formset)
        return inlines

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        return combine(ChangedFieldsForm, super().get_changelist_form(request, **kwargs))

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        return combine(LockingFormSet, super().get_changelist_formset(request, **kwargs))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method != "POST" or "_save" not in request.POST:
            return super().changelist_view(request, extra_context)
        with transaction.atomic():
            return super().changelist_view(request, extra_context)

    # Deletions

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Any:
        rows = list(objs)
        if not rows:
            return [], {}, set(), []
        deleted = DeletedObjects(rows)
        lacking = deleted.undeletable(request, self.admin_site)
        protected = [str(row) for row in deleted.protected]
        return deleted.describe(self.admin_site), deleted.counts(), lacking, protected


@admin.action(permissions=["delete"], description="Delete selected %(verbose_name_plural)s")
def delete_selected(
    model_admin: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Any]
) -> HttpResponse | None:
    """Delete the selected rows that still exist, and report their number."""
    with transaction.atomic():
        lock(queryset)
        return actions.delete_selected(model_admin, request, queryset)


def comparisons(model: type[Model], lookup: str) -> list[str]:
    """Return the parts of a lookup after its path of fields, or [] without such a path."""
    options = model._meta
    parts = lookup.split(LOOKUP_SEP)
    for number, part in enumerate(parts):
        try:
            field = options.get_field(options.pk.name if part == "pk" else part)
        except FieldDoesNotExist:
            return parts[number:] if number else []
        if field.related_model is None:
            return parts[number + 1 :]
        options = field.related_model._meta
    return []

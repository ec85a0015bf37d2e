"""
Rules for the console's pages of every model, including your own.

`ConsoleSite.register` makes `BoundedAdmin` a base class of each model's admin. A form changes only
the fields that its user changed, on the current row. A page lists a bounded number of rows.
"""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import actions
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, ValidationError
from django.core.paginator import Paginator
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from api import exceptions, pagination
from api.search import find_by_index
from console.deletion import DeletedObjects
from console.filters import is_allowed
from console.forms import (
    ChangedFieldsForm,
    LockingFormSet,
    RejectedForm,
    RejectedFormSet,
    lock,
)

MAXIMUM_SELECTED = 1_000  # rows of one action
MAXIMUM_WORDS = 6  # of a search


def save(request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
    """
    Return the response of a page that saves forms, in a transaction.

    The database may reject what was valid, because of a row that was saved after the validation.
    The page is then rendered again, with an error instead of a result.
    """
    try:
        with transaction.atomic():
            return view()
    except IntegrityError as error:
        exceptions.log_integrity_error(request, error)
        request.was_rejected = True  # type: ignore[attr-defined]  # read by was_rejected
    with transaction.atomic():
        return view()


def was_rejected(request: HttpRequest) -> bool:
    return hasattr(request, "was_rejected")


def combine(mixin: type[Any], base: type[Any]) -> type[Any]:
    return type(base.__name__, (mixin, base), {"__module__": base.__module__})


class BoundedPaginator(Paginator):
    """A paginator with a bounded count; a search or a filter finds rows beyond it."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # stubs
        return min(pagination.bounded_count(rows), pagination.MAXIMUM_COUNT)


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
        return is_allowed(self, lookup, request)

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
            messages.warning(request, _("Too many rows match, so some are not shown. Add a word."))
        return queryset.filter(pk__in=found.pks), False

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Reject an action on more than `MAXIMUM_SELECTED` rows."""
        is_across = request.POST.get("select_across", "0") != "0"
        if is_across and self.get_paginator(request, queryset, 1).count > MAXIMUM_SELECTED:
            text = (
                _("An action is limited to %s rows. No row was changed.") % f"{MAXIMUM_SELECTED:,}"
            )
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
        form = combine(ChangedFieldsForm, form) if change else form
        return combine(RejectedForm, form) if was_rejected(request) else form

    def get_inline_instances(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        inlines = super().get_inline_instances(request, obj)
        for inline in inlines:
            inline.form = combine(ChangedFieldsForm, inline.form)
            inline.formset = combine(LockingFormSet, inline.formset)
        return inlines

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        return combine(ChangedFieldsForm, super().get_changelist_form(request, **kwargs))

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        formset = combine(LockingFormSet, super().get_changelist_formset(request, **kwargs))
        return combine(RejectedFormSet, formset) if was_rejected(request) else formset

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        view = partial(super().changeform_view, request, *args, **kwargs)
        return save(request, view) if request.method == "POST" else view()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        view = partial(super().changelist_view, request, extra_context)
        is_form = request.method == "POST" and "_save" in request.POST
        return save(request, view) if is_form else view()

    def save_related(self, *args: Any, **kwargs: Any) -> None:
        """Save, and check the foreign keys now rather than at the commit, after the messages."""
        super().save_related(*args, **kwargs)
        transaction.get_connection().check_constraints()

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

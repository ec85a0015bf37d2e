"""Forms of the console that change only the fields that their user changed, on the current row."""

from functools import cached_property
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms.models import BaseModelFormSet
from django.utils.translation import gettext_lazy as _

REJECTED = _(
    "Not saved: the database rejected the values, or another row was changed at the same time. "
    "Check the values and save again."
)


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


class RejectedForm(forms.ModelForm):
    """A form whose values the database rejected after they were validated."""

    def full_clean(self) -> None:
        """Validate again, which finds the row that was saved meanwhile, and never be valid."""
        super().full_clean()
        if not self.errors:
            self.add_error(None, ValidationError(REJECTED, code="conflict"))


class RejectedFormSet(BaseModelFormSet):
    """A formset of which the database rejected a row after it was validated."""

    def clean(self) -> None:
        super().clean()
        raise ValidationError(REJECTED, code="conflict")

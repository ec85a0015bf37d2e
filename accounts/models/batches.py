"""Work on any number of rows, in batches that each finish within a statement's timeout."""

from collections.abc import Iterator
from typing import Any

from django.db import models, transaction
from django.db.models import CASCADE, ProtectedError, RestrictedError

BATCH = 500

Rows = models.QuerySet[Any]
Model = type[models.Model]


def key_batches(rows: Rows, *, size: int = BATCH) -> Iterator[list[Any]]:
    """Yield the primary keys of rows in ascending order, so many at a time."""
    ordered = rows.order_by("pk")
    keys = list(ordered.values_list("pk", flat=True)[:size])
    while keys:
        yield keys
        rest = ordered.filter(pk__gt=keys[-1]).values_list("pk", flat=True)
        keys = list(rest[:size]) if len(keys) == size else []


def chunks(keys: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def prune(rows: Rows, *, size: int) -> Iterator[int]:
    """
    Delete rows that nothing refers to, and yield the number of each batch.

    Rows that another run is deleting are skipped, so two runs share the work.
    """
    while True:
        with transaction.atomic():
            free = rows.select_for_update(skip_locked=True)
            keys = list(free.values_list("pk", flat=True)[:size])
            deleted, _ = rows.model._base_manager.filter(pk__in=keys).delete()
        if not deleted:
            return
        yield deleted


def delete_referring_rows(row: models.Model) -> None:
    """
    Delete the rows that a deletion of this row would delete too, of any app and in any number.

    Django alone deletes them in one statement for each relation. Rows that it would protect are
    left for its own deletion of the row, which comes last.
    """
    for relation in cascading_relations(type(row)):
        try:
            with transaction.atomic():
                delete_referring(relation, [row.pk], frozenset([type(row)]))
        except (ProtectedError, RestrictedError):
            continue


def delete_referring(relation: Any, keys: list[Any], above: frozenset[Model]) -> None:
    """Delete the rows that refer to these keys, after the rows that refer to those."""
    model = relation.related_model
    referring = model._base_manager.filter(**{f"{relation.field.name}__in": keys})
    # One query reads all keys: a query for each batch would scan the deleted rows again.
    for batch in chunks(list(referring.values_list("pk", flat=True))):
        for below in cascading_relations(model):
            # Django handles models that refer to each other in a circle.
            if below.related_model not in above | {model}:
                delete_referring(below, batch, above | {model})
        model._base_manager.filter(pk__in=batch).delete()


def cascading_relations(model: Model) -> list[Any]:
    """Return the relations by which rows of other models are deleted with a row of this one."""
    return [
        relation
        for relation in model._meta.get_fields(include_hidden=True)
        if isinstance(relation, models.ManyToOneRel)
        and relation.on_delete is CASCADE
        # A child of multi-table inheritance is the row itself.
        and not getattr(relation, "parent_link", False)
    ]

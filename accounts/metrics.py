"""Metrics of accounts that are read from tables; the counters are in their modules."""

from collections.abc import Iterator
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.db.models import QuerySet
from prometheus_client.core import GaugeMetricFamily, Metric

from accounts.models import ApiToken, OutgoingEmail, Session

EMAILS_KEY = "metrics:emails"
FRESH = 60  # seconds; both are counts over a table
DUE = """
    SELECT count(*), coalesce(extract(epoch FROM statement_timestamp() - min(created_at)), 0)::float
      FROM accounts_outgoingemail
     WHERE sent_at IS NULL AND failed_at IS NULL AND due_at <= statement_timestamp()
"""
OUTCOMES = """
    SELECT kind, CASE WHEN sent_at IS NOT NULL THEN 'sent' WHEN failed_at IS NOT NULL THEN 'failed'
                      WHEN error <> '' THEN 'deferred' ELSE 'waiting' END AS outcome, count(*)
      FROM accounts_outgoingemail GROUP BY kind, outcome
"""


def collect() -> Iterator[Metric]:
    for name, what, table in (
        ("sessions", "Sessions", Session.objects),
        ("api_tokens", "API tokens", ApiToken.objects),
    ):
        yield GaugeMetricFamily(
            f"latchkey_active_{name}",
            f"{what} that are active.",
            value=count_active(f"metrics:active-{name}", table.active()),
        )
    due, oldest = rows(DUE)[0]
    yield GaugeMetricFamily("latchkey_mail_due", "Emails that are due.", value=due)
    yield GaugeMetricFamily(
        "latchkey_mail_oldest_seconds",
        "How long ago the oldest email that is due was written.",
        value=oldest,
    )
    yield emails()


def count_active(key: str, rows: QuerySet[Any]) -> int:
    """Count the rows, or return a recent count unless the cache holds no number."""
    count = cache.get(key)
    if not isinstance(count, int):
        count = rows.count()
        cache.set(key, count, FRESH)
    return count


def emails() -> Metric:
    """Count the emails; the worker is another process, so the table is read."""
    metric = GaugeMetricFamily(
        "latchkey_mails",
        "Emails in the outbox, by kind and outcome, until they are pruned.",
        labels=["kind", "outcome"],
    )
    counts = cache.get(EMAILS_KEY)
    if not are_counts(counts):
        counts = rows(OUTCOMES)
        cache.set(EMAILS_KEY, counts, FRESH)
    found = {(kind, outcome): count for kind, outcome, count in counts}
    for kind in OutgoingEmail.Kind.values:
        for outcome in ("sent", "failed", "deferred", "waiting"):
            metric.add_metric([kind, outcome], found.get((kind, outcome), 0))
    return metric


def are_counts(value: Any) -> bool:
    """Tell whether a value of the cache, which others can write, is what `rows` returns."""
    return isinstance(value, list) and all(
        isinstance(row, list) and [type(entry) for entry in row] == [str, str, int] for row in value
    )


def rows(statement: str) -> list[list[float]]:
    """Run a query; lists, because the shared cache may keep JSON."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [list(row) for row in cursor.fetchall()]

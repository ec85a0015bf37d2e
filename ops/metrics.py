"""
What Prometheus reads, on a port of its own.

The workers write their numbers into files that whichever worker is asked adds up; what belongs to
the whole service (connections, sessions, readiness) is looked up when it asks. With several
instances those are the same in each: take their maximum, not their sum.
"""

import contextlib
from collections.abc import Iterator
from wsgiref.types import WSGIApplication

from django.core.cache import cache
from django.db import DatabaseError, close_old_connections, connection
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from accounts.models import Session
from health.views import OK, checks

ACTIVE_SESSIONS_FRESH = 60  # seconds; it is a count over the table
CONNECTIONS = """
    SELECT coalesce(state, 'unknown'), count(*), current_setting('max_connections')::int
      FROM pg_stat_activity WHERE datname = current_database() GROUP BY state
"""


class ServiceCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        # No request of Django's has looked after this thread's connection.
        close_old_connections()
        looked_at = GaugeMetricFamily(
            "latchkey_check_ok", "What readiness looks at: 1 where it is well.", labels=["check"]
        )
        for name, outcome in checks().items():
            looked_at.add_metric([name], outcome == OK)
        yield looked_at
        # A database that is away is in what was looked at.
        with contextlib.suppress(DatabaseError):
            yield from database_metrics()


def database_metrics() -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "latchkey_database_connections", "Connections to the database.", labels=["state"]
    )
    with connection.cursor() as cursor:
        cursor.execute(CONNECTIONS)
        rows = cursor.fetchall()
    for state, count, _ in rows:
        connections.add_metric([state], count)
    yield connections
    yield GaugeMetricFamily(
        "latchkey_database_connections_limit", "The server's max_connections.", value=rows[0][2]
    )
    active = active_sessions()
    yield GaugeMetricFamily("latchkey_active_sessions", "Sessions that are active.", value=active)


def active_sessions() -> int:
    """Count the active sessions, or return a recent count unless the cache holds no number."""
    count = cache.get("metrics:active-sessions")
    if not isinstance(count, int):
        count = Session.objects.active().count()
        cache.set("metrics:active-sessions", count, ACTIVE_SESSIONS_FRESH)
    return count


def metrics_application() -> WSGIApplication:
    """Return the WSGI application of METRICS_PORT; gunicorn.conf.py says where the files are."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(ServiceCollector())
    return make_wsgi_app(registry)

"""
What Prometheus reads, on a port of its own.

The workers write their numbers into files that whichever worker is asked adds up; what belongs to
the whole service (connections, sessions, readiness) is looked up when it asks. With several
instances those are the same in each: take their maximum, not their sum.
"""

import contextlib
from collections.abc import Iterator
from wsgiref.types import WSGIApplication

from django.apps import apps
from django.db import DatabaseError, close_old_connections, connection
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from health.views import OK, checks

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
        # A database that is unavailable is reported by its check.
        with contextlib.suppress(DatabaseError):
            yield from database_metrics()
            yield from app_metrics()


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


def app_metrics() -> Iterator[Metric]:
    """Collect what the apps report about themselves: each may define `AppConfig.metrics()`."""
    for app in apps.get_app_configs():
        yield from getattr(app, "metrics", tuple)()


def metrics_application() -> WSGIApplication:
    """Return the WSGI application of METRICS_PORT; gunicorn.conf.py says where the files are."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(ServiceCollector())
    return make_wsgi_app(registry)

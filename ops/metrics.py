"""
Prometheus metrics on a separate port.

Each worker writes its metrics into files, and the worker that receives a scrape adds them up.
Metrics of the whole service (connections, sessions, readiness) are queried during the scrape. Each
instance reports the same values for these: use their maximum, not their sum.
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

from health.views import OK, run_checks

CONNECTIONS = """
    SELECT coalesce(state, 'unknown'), count(*), current_setting('max_connections')::int
      FROM pg_stat_activity WHERE datname = current_database() GROUP BY state
"""


class ServiceCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        # Django closes old connections only at the start and the end of its own requests.
        close_old_connections()
        readiness = GaugeMetricFamily(
            "latchkey_check_ok",
            "Whether a readiness check passes (1) or not (0).",
            labels=["check"],
        )
        for name, outcome in run_checks().items():
            readiness.add_metric([name], outcome == OK)
        yield readiness
        # latchkey_check_ok reports an unavailable database.
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
    """Yield the metrics of the apps that define `AppConfig.metrics()`."""
    for app in apps.get_app_configs():
        yield from getattr(app, "metrics", tuple)()


def metrics_application() -> WSGIApplication:
    """Return the WSGI application of METRICS_PORT; gunicorn.conf.py sets its directory."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped library
    registry.register(ServiceCollector())
    return make_wsgi_app(registry)

"""What Prometheus reads about accounts, beside the counters of each module."""

from collections.abc import Iterator

from django.core.cache import cache
from prometheus_client.core import GaugeMetricFamily, Metric

from accounts.models import Session

ACTIVE_SESSIONS_KEY = "metrics:active-sessions"
ACTIVE_SESSIONS_FRESH = 60  # seconds; it is a count over the table


def collect() -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "latchkey_active_sessions", "Sessions that are active.", value=active_sessions()
    )


def active_sessions() -> int:
    """Count the active sessions, or return a recent count unless the cache holds no number."""
    count = cache.get(ACTIVE_SESSIONS_KEY)
    if not isinstance(count, int):
        count = Session.objects.active().count()
        cache.set(ACTIVE_SESSIONS_KEY, count, ACTIVE_SESSIONS_FRESH)
    return count

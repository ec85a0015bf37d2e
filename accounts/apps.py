from collections.abc import Iterable
from typing import Any

from django.apps import AppConfig
from prometheus_client.core import Metric


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import schema  # noqa: F401 - drf-spectacular finds what is imported
        from api import throttling

        throttling.on_limit_reached.add(record_limit)

    def metrics(self) -> Iterable[Metric]:
        """Return what Prometheus reads about accounts; `ops.metrics` calls this."""
        from accounts import metrics

        return metrics.collect()

    def export(self, user: Any) -> Iterable[tuple[str, Any]]:
        """Return what is stored about a user; `api.exports` calls this."""
        from accounts import export

        return export.parts(user)


def record_limit(name: str) -> None:
    """Record a rate limit that a client exceeded."""
    from accounts.models import Event

    Event.objects.record_limit(name)

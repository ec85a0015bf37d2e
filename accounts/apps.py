from collections.abc import Iterable

from django.apps import AppConfig
from prometheus_client.core import Metric


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import schema  # noqa: F401 - drf-spectacular finds what is imported
        from accounts.models import Event
        from api import throttling

        throttling.on_limit_reached.append(Event.objects.record_limit)

    def metrics(self) -> Iterable[Metric]:
        """Return what Prometheus reads about accounts; `ops.metrics` calls this."""
        from accounts import metrics

        return metrics.collect()

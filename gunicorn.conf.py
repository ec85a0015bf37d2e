"""How gunicorn serves Latchkey; `gunicorn` alone, in this directory, is the whole command."""

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config import settings

is_reloading = "--reload" in sys.argv
if not is_reloading:
    # Here, in the master, a bad configuration ends the start with one list and exit code 1. With
    # --reload the master must not import what its workers are to load afresh.
    from config.checks import exit_on_faults

    exit_on_faults()

wsgi_app = "config.wsgi:application"
host = settings.HOST or ("127.0.0.1" if is_reloading else "0.0.0.0")
bind = f"[{host}]:{settings.PORT}" if ":" in host else f"{host}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "gthread"
threads = settings.WEB_THREADS
# Longer than the longest queue for hashing, so that a restart drops no login.
graceful_timeout = 30
# Which proxies to believe is for TRUSTED_PROXY_COUNT to say; gunicorn believes none.
forwarded_allow_ips = ""
# No socket in the home directory, which may be read-only.
control_socket_disable = True


def on_starting(server):
    """Keep the embedded database for as long as the master lives, not just a worker."""
    if settings.DATABASES["default"].get("ENGINE") == "config.embedded_postgres":
        from config import embedded_postgres

        embedded_postgres.start()


def post_fork(server, worker):
    """Let a reloaded worker read the settings anew."""
    if is_reloading:
        del sys.modules["config.settings"], sys.modules["config.environment"]


def post_worker_init(worker):
    """End the output of `make run` with where to go, once the first worker can serve."""
    if is_reloading and worker.age == 1:
        origin = f"http://{'localhost' if host == '127.0.0.1' else host}:{settings.PORT}"
        worker.log.info("API      %s/api/v1", origin)
        worker.log.info("Docs     %s/api/v1/docs", origin)
        worker.log.info("Admin    %s/%s", origin, settings.ADMIN_PATH)
        worker.log.info("Staff    .venv/bin/python manage.py createsuperuser")
        worker.log.info("Ctrl-C stops the service, and its database with it.")

"""
gunicorn's settings; `gunicorn` alone, in this directory, is the whole command.

To stop an instance without losing a request: SIGUSR1 (readiness fails, requests are served), wait
until the load balancer has seen it, then SIGTERM (requests in progress are completed). SIGHUP
replaces the workers; a new release or another environment needs a new master.
"""

import atexit
import logging
import os
import shutil
import sys
import tempfile

from gunicorn import glogging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config import settings


def remove_metrics(directory, owner):
    if os.getpid() == owner:  # A worker that exits leaves the others' files.
        shutil.rmtree(directory, ignore_errors=True)


if settings.METRICS_PORT:
    # The files in which all processes count. The variable has to be set before the first metric.
    metrics_directory = tempfile.mkdtemp(prefix="latchkey-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_directory
    atexit.register(remove_metrics, metrics_directory, os.getpid())

is_reloading = "--reload" in sys.argv
if not is_reloading:
    # In the master, a bad configuration ends the start with one list and exit code 1. With
    # --reload the master must not import the modules that its workers are to load afresh.
    from config.startup import exit_on_faults

    exit_on_faults()

    # Python's warnings are log lines too, in the service's format.
    logging.captureWarnings(True)


class Logger(glogging.Logger):
    """gunicorn's log, written by the service's handler and in its format."""

    def setup(self, cfg):
        super().setup(cfg)
        if not is_reloading:  # Then the master has no settings, and so no handler.
            self.error_log.handlers.clear()
            self.error_log.propagate = True


logger_class = Logger
loglevel = settings.LOG_LEVEL
wsgi_app = "config.wsgi:application"
worker_class = "ops.server.Worker"
host = settings.HOST or ("127.0.0.1" if is_reloading else "0.0.0.0")
ports = [settings.PORT, *([settings.METRICS_PORT] if settings.METRICS_PORT else [])]
bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for port in ports]
workers = settings.WEB_CONCURRENCY
threads = settings.WEB_THREADS
# Three times the longest that a request may take: two seconds in the hashing queue, about one to
# hash, five for a database that hangs. SIGKILL has to come later than this.
graceful_timeout = 30
# Longer than the service's own Retry-After: a client that waits finds its connection open.
keepalive = 5
# TRUSTED_PROXY_COUNT says which proxies to trust; gunicorn trusts none.
forwarded_allow_ips = ""
# No socket in the home directory, which may be read-only.
control_socket_disable = True


def on_starting(server):
    """Keep the embedded database running as long as the master; count its connections."""
    if settings.DATABASES["default"].get("ENGINE") == "ops.database.embedded":
        from ops.database import embedded

        embedded.start()
    if not is_reloading:
        exit_on_faults(with_database=True)


def child_exit(server, worker):
    """Drop the gauges of a worker that has exited; its counters stay."""
    if settings.METRICS_PORT:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def post_fork(server, worker):
    """Let a reloaded worker read the settings anew."""
    if is_reloading:
        del sys.modules["config.settings"], sys.modules["config.environment"]


def post_worker_init(worker):
    """Print the addresses at the end of `make run`'s output, once a worker can serve."""
    if is_reloading and worker.age == 1:
        origin = f"http://{'localhost' if host == '127.0.0.1' else host}:{settings.PORT}"
        worker.log.info("API      %s/api/v1", origin)
        worker.log.info("Docs     %s/api/v1/docs", origin)
        worker.log.info("Admin    %s/%s", origin, settings.ADMIN_PATH)
        if settings.MAILBOX:
            worker.log.info("Mail     %s/mail", origin)
        worker.log.info("Staff    .venv/bin/python manage.py createsuperuser")
        worker.log.info("Ctrl-C stops the service, and its database with it.")

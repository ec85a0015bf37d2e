"""
gunicorn's settings. Run `gunicorn` without arguments in this directory.

To stop an instance without losing requests: send SIGUSR1 (readiness fails, requests are served),
wait until the load balancer has removed the instance, then send SIGTERM (requests in progress are
completed). SIGHUP restarts the workers. A new release or environment needs a new master.
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
    if os.getpid() == owner:  # A worker that exits must keep the files of the others.
        shutil.rmtree(directory, ignore_errors=True)


if settings.METRICS_PORT:
    # The metric files of all processes. The variable must be set before the first metric.
    metrics_directory = tempfile.mkdtemp(prefix="latchkey-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_directory
    atexit.register(remove_metrics, metrics_directory, os.getpid())

is_reloading = "--reload" in sys.argv
if not is_reloading:
    # In the master, an invalid configuration prints one list and exits with 1. With --reload the
    # master must not import modules that its workers reload.
    from config.startup import exit_on_faults

    exit_on_faults()

    # Log Python's warnings in the service's format.
    logging.captureWarnings(True)


class Logger(glogging.Logger):
    """gunicorn's log in the service's format."""

    def setup(self, cfg):
        super().setup(cfg)
        if not is_reloading:  # With --reload the master has no handler.
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
# Three times the maximum duration of a request: two seconds in the hashing queue, about one for the
# hash, five for a database that hangs. SIGKILL must come later.
graceful_timeout = 30
# Longer than the service's Retry-After, so that a waiting client keeps its connection.
keepalive = 5
# TRUSTED_PROXY_COUNT sets the trusted proxies; gunicorn trusts none.
forwarded_allow_ips = ""
# The home directory may be read-only.
control_socket_disable = True


def on_starting(server):
    """Start the embedded database for the lifetime of the master, and run the startup checks."""
    if settings.DATABASES["default"].get("ENGINE") == "ops.database.embedded":
        from ops.database import embedded

        embedded.start()
    if not is_reloading:
        exit_on_faults(with_database=True)


def child_exit(server, worker):
    """Remove the gauges of an exited worker; its counters remain."""
    if settings.METRICS_PORT:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def post_fork(server, worker):
    """Remove the modules of the settings so that a reloaded worker reads them again."""
    if is_reloading:
        for name in [name for name in sys.modules if name.partition(".")[0] == "config"]:
            del sys.modules[name]


def post_worker_init(worker):
    """Log the URLs for `make run` when the first worker is ready."""
    if is_reloading and worker.age == 1:
        origin = f"http://{'localhost' if host == '127.0.0.1' else host}:{settings.PORT}"
        worker.log.info("Start    %s", origin)
        worker.log.info("API      %s/%s", origin, settings.API_PATH)
        worker.log.info("Docs     %s/%sdocs", origin, settings.API_PATH)
        worker.log.info("Admin    %s/%s", origin, settings.ADMIN_PATH)
        if settings.MAILBOX:
            worker.log.info("Mail     %s/mail", origin)
        worker.log.info("Staff    .venv/bin/python manage.py createsuperuser")
        worker.log.info("Ctrl-C stops the service and its embedded database.")

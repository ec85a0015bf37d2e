"""
How gunicorn serves Latchkey; `gunicorn` alone, in this directory, is the whole command.

To stop an instance without losing a request: SIGUSR1 (it stops being ready, and serves on), wait
until whatever balances the load has looked, SIGTERM (it finishes what it has been asked, and goes).
SIGHUP replaces the workers one generation by the next; a new release or another environment wants a
new master.
"""

import atexit
import gc
import mmap
import os
import select
import shutil
import signal
import sys
import tempfile
import time

from gunicorn.workers import gthread

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config import settings


def forget_metrics(directory, owner):
    if os.getpid() == owner:  # A worker that ends leaves the others' alone.
        shutil.rmtree(directory, ignore_errors=True)


if settings.METRICS_PORT:
    # Where the processes put their numbers; it has to be known before anything counts.
    metrics_directory = tempfile.mkdtemp(prefix="latchkey-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_directory
    atexit.register(forget_metrics, metrics_directory, os.getpid())

is_reloading = "--reload" in sys.argv
if not is_reloading:
    # Here, in the master, a bad configuration ends the start with one list and exit code 1. With
    # --reload the master must not import what its workers are to load afresh.
    from config.checks import exit_on_faults

    exit_on_faults()

wsgi_app = "config.wsgi:application"
host = settings.HOST or ("127.0.0.1" if is_reloading else "0.0.0.0")
ports = [settings.PORT, *([settings.METRICS_PORT] if settings.METRICS_PORT else [])]
bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for port in ports]
workers = settings.WEB_CONCURRENCY
threads = settings.WEB_THREADS
# Three times the longest that a request may take: two seconds for a place to hash, about one to
# hash, five for a database that hangs. Whoever sends SIGTERM waits longer still before SIGKILL.
graceful_timeout = 30
# Longer than a Retry-After of ours: who comes back as told finds the connection still there.
keepalive = 5
# Which proxies to believe is for TRUSTED_PROXY_COUNT to say; gunicorn believes none.
forwarded_allow_ips = ""
# No socket in the home directory, which may be read-only.
control_socket_disable = True


# Shared by all workers, an integer for each (and for as many of the next generation): one more than
# the connections that it has, or 0 where it takes no other.
takers = memoryview(mmap.mmap(-1, 4 * 2 * workers)).cast("i")


def says_more(connection, within):
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(within))  # milliseconds


class Worker(gthread.ThreadWorker):
    """
    A gthread worker that shares, stays with who is asking, and hangs up on nobody when it stops.

    The kernel gives a connection to whichever worker comes first, and that is one which is awake
    already: of eight clients that keep their connections gthread serves eight with one process, and
    none with the other. This one leaves a connection to a worker that has fewer.

    gthread hands a connection back to its main thread after each request, and a connection that
    asks again to another one: two threads are woken, which costs as much as a small request.

    gthread leaves its socket open, and unheard, until the last request is done: the kernel goes on
    completing connections for it, and resets them in the end, requests and all (gunicorn's issue
    3397). This one hears out who is connected and closes at once, so that whoever comes later is
    refused and may safely ask another instance, whatever the method.
    """

    def accept(self, listener):
        """Accept a connection; unless stopping, let a worker with two fewer come for it first."""
        until = time.monotonic() + 0.003
        while self.alive and self.has_more_than_another() and time.monotonic() < until:
            time.sleep(0.001)
        super().accept(listener)

    def has_more_than_another(self):
        return any(0 < taker < self.nr_conns for taker in takers)

    def notify(self):
        """Tell the master that this worker lives, and the other workers how many it serves."""
        super().notify()
        takers[self.place] = 1 + self.nr_conns if self.alive and self._accepting else 0

    def handle(self, conn):
        """
        Serve a connection, and again if it asks at once and nobody waits for this thread.

        One that says nothing waits in the main thread: gthread would let it keep this one for
        five seconds, so that eight who are silent keep everyone from being served. A worker that
        stops does let it: its main thread takes nobody more to wait for.
        """
        if self.alive and not conn.initialized:
            conn.data_ready = says_more(conn.sock, within=2)
            if not conn.data_ready:
                return gthread._DEFER
        kept = super().handle(conn)
        while kept is True and self.tpool._work_queue.empty() and says_more(conn.sock, within=2):
            kept = super().handle(conn)
        if not kept:
            # A socket that is closed on unread bytes is reset, answer and all, so gthread waits up
            # to two seconds for every client to hang up; and hears nobody else meanwhile.
            conn.close(graceful=says_more(conn.sock, within=0))
        return kept

    def finish_request(self, conn, fs):
        if conn.sock.fileno() == -1:
            self.nr_conns -= 1
        elif not (self.alive or conn.initialized or conn.timeout):
            # It has said nothing yet, and this worker is told to stop: once more, with time.
            conn.set_timeout()
            self.enqueue_req(conn)
        else:
            super().finish_request(conn, fs)

    def set_accept_enabled(self, enabled):
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                self.accept_all(listener)
                listener.close()
            self.sockets = []

    def accept_all(self, listener):
        before = None
        while before != self.nr_conns:
            before = self.nr_conns
            self.accept(listener)


worker_class = Worker


def on_starting(server):
    """Keep the embedded database for as long as the master lives; count its connections."""
    if settings.DATABASES["default"].get("ENGINE") == "config.embedded_postgres":
        from config import embedded_postgres

        embedded_postgres.start()
    if not is_reloading:
        exit_on_faults(with_database=True)


def pre_fork(server, worker):
    """Give a worker a place among the takers."""
    taken = {other.place for other in server.WORKERS.values()}
    worker.place = next((place for place in range(len(takers)) if place not in taken), 0)


def child_exit(server, worker):
    """Forget what a worker had in hand; what it counted stays."""
    takers[worker.place] = 0
    if settings.METRICS_PORT:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def post_fork(server, worker):
    """Let a reloaded worker read the settings anew."""
    if is_reloading:
        del sys.modules["config.settings"], sys.modules["config.environment"]


def post_worker_init(worker):
    """Take SIGUSR1; end the output of `make run` with where to go, once a worker can serve."""
    # What stands by now stays: a full collection over all of it is a pause of 70 ms. What a request
    # leaves is rarely circular, so it is looked for less often than after every 700 objects.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)

    def drain(*_):
        from health.views import draining

        draining.set()
        worker.max_keepalived = 0  # Every answer from now on is its connection's last.

    signal.signal(signal.SIGUSR1, drain)
    if is_reloading and worker.age == 1:
        origin = f"http://{'localhost' if host == '127.0.0.1' else host}:{settings.PORT}"
        worker.log.info("API      %s/api/v1", origin)
        worker.log.info("Docs     %s/api/v1/docs", origin)
        worker.log.info("Admin    %s/%s", origin, settings.ADMIN_PATH)
        worker.log.info("Staff    .venv/bin/python manage.py createsuperuser")
        worker.log.info("Ctrl-C stops the service, and its database with it.")

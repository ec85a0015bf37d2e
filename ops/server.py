"""
gunicorn's threaded worker, with changes to probes, shutdown and drain.

Probes do not wait for other requests. Shutdown and drain lose no requests.

`gunicorn.conf.py` selects it. It overrides undocumented methods of gunicorn, so `config.checks`
rejects gunicorn releases that did not pass the restart tests.
"""

import re
import selectors
import socket
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

# The complete head of a probe, as it arrives in one packet.
PROBE = re.compile(
    rb"(?:GET|HEAD) (?:/api/v1)?/health(?P<check>/live|/ready)? HTTP/1\.[01]\r\n.*\r\n\r\n",
    re.DOTALL,
)
BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding)", re.IGNORECASE)
PEEKED_BYTES = 4096


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    sockets: list[Any]
    probe_pools: dict[bytes | None, Executor]

    def init_process(self) -> None:
        # Readiness waits for the database, so it has a thread and liveness another.
        alive = ThreadPoolExecutor(1, "liveness")
        self.probe_pools = {None: alive, b"/live": alive, b"/ready": ThreadPoolExecutor(1, "ready")}
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """
        Submit a request to the threads, a probe to a thread of its own.

        Searches may take all threads. A probe that waits for one would time out, and the
        orchestrator would stop an instance that works. No client may block the thread of probes:
        a probe has a complete head, no body and a new connection, as orchestrators send it.
        """
        if conn.initialized:
            super().enqueue_req(conn)
            return
        head = peek(conn.sock)
        if head is None and not conn.data_ready:
            self.wait_for_request(conn)
            return
        request = self.pool_of(head or b"").submit(self.handle, conn)
        request.add_done_callback(
            lambda future: self.method_queue.defer(self.finish_request, conn, future)
        )

    def pool_of(self, head: bytes) -> Executor:
        """Return the threads for a request with these first bytes."""
        probe = None if BODY.search(head) else PROBE.fullmatch(head)
        pool: Executor = self.probe_pools[probe["check"]] if probe else self.tpool
        return pool

    def wait_for_request(self, conn: Any) -> None:
        """Wait for a new connection's first bytes, without a thread, for `keepalive` seconds."""
        conn.set_timeout()
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def set_accept_enabled(self, enabled: bool) -> None:
        """
        Close the listening sockets as soon as the worker stops.

        gunicorn keeps them open until the last request completes. The kernel continues to accept
        connections and finally resets them, so a proxy cannot determine whether a request was
        processed (gunicorn issue 3397). A closed socket rejects connections immediately, and the
        proxy sends the request to another instance.
        """
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                self.accept_backlog(listener)
                listener.close()
            self.sockets = []

    def accept_backlog(self, listener: Any) -> None:
        """Accept the connections that the kernel has already completed."""
        accepted = -1
        while accepted != self.nr_conns:
            accepted = self.nr_conns
            self.accept(listener)

    def handle_usr1(self, signal_number: int, frame: FrameType | None) -> None:
        """Drain: readiness returns 503, and each response closes its connection."""
        # Imported here, because with --reload the master must not import reloaded modules.
        from health.views import draining

        draining.set()
        self.max_keepalived = 0


def peek(connection: socket.socket) -> bytes | None:
    """Return the first bytes that have arrived, or None without any; do not consume them."""
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
    try:
        # A TLS socket does not peek; its encrypted bytes are no probe.
        return socket.socket.recv(connection, PEEKED_BYTES, flags)
    except BlockingIOError:
        return None
    except OSError:  # The thread that reads the request handles the error.
        return b""

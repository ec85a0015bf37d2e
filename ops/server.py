"""
gunicorn's threaded worker, with a shutdown and a drain that lose no requests.

`gunicorn.conf.py` selects it. It overrides undocumented methods of gunicorn, so `config.checks`
rejects gunicorn releases that did not pass the restart tests.
"""

from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    sockets: list[Any]

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

"""
gunicorn's threaded worker, with a stop and a drain that lose no request.

`gunicorn.conf.py` selects it. It overrides methods that gunicorn does not document, so
`config.checks` rejects a gunicorn release that the restart tests have not passed with.
"""

from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    sockets: list[Any]

    def set_accept_enabled(self, enabled: bool) -> None:
        """
        Close the listening sockets as soon as the worker stops.

        gunicorn keeps them open until the last request is done. The kernel goes on completing
        connections for them and resets these in the end, so that a proxy cannot tell whether
        a request was processed (gunicorn's issue 3397). A connection to a closed socket is
        rejected at once, and a proxy sends that request to another instance.
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
        """Drain: readiness responds 503, and each response is the last on its connection."""
        # Not at the top: with --reload the master must not hold what a worker loads afresh.
        from health.views import draining

        draining.set()
        self.max_keepalived = 0

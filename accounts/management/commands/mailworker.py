import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from accounts.delivery import Worker, describe, empty_outbox


class Command(BaseCommand):
    help = (
        "Send the emails of the outbox until SIGTERM or SIGINT. Any number of workers may run. "
        "With --once, send what is due and exit."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="send what is due and exit")
        parser.add_argument("--parent", type=int, help="stop when this parent process has ended")

    def handle(self, *args: Any, once: bool, parent: int | None, **options: Any) -> None:
        if once:
            self.send_once()
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        # A database that hangs is noticed as early as by a request.
        connection.settings_dict |= settings.WEB_DATABASE
        Worker(stop, parent).run()

    def send_once(self) -> None:
        try:
            count = empty_outbox()
        except OSError as error:
            raise CommandError(f"The mail server is unavailable: {describe(error)}") from error
        self.stdout.write(f"{count} email(s) handled.")

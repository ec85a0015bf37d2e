import os
import socket
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from config.management.commands.generatesecrets import NAMES, good_secret
from config.startup import exit_on_faults
from ops.files import write_private

ENV = """\
# Written by `make run`. .env.example describes every variable.
DEBUG=true
DATABASE_URL=embedded://
{secrets}
"""


class Command(BaseCommand):
    help = "Prepare the first start: create .env with new secrets if it is missing, and migrate."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(settings.BASE_DIR, ".env")
        if not path.exists():
            secrets = "\n".join(f"{name}={good_secret()}" for name in NAMES)
            write_private(path, ENV.format(secrets=secrets))
            self.stdout.write("Wrote .env with new secrets.")
            # Settings are read once, so restart with the new file.
            os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - the same command
        exit_on_faults()
        reject_taken_port(settings.HOST or "127.0.0.1", settings.PORT)
        call_command("migrate", verbosity=0)


def reject_taken_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} of {host} is unavailable ({error.strerror}); try: make run PORT=3001"
            ) from error

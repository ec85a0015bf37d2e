import re
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.dotenv import read_dotenv
from config.secret_rules import secret_faults
from config.values import split_names
from ops.files import read_text, write_private

NAMES = ("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET")


class Command(BaseCommand):
    help = (
        "Print three random secrets as lines for .env. With --write, write them to .env and keep "
        "the previous secrets as the first of their _FALLBACKS, so that signatures stay valid."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--write", action="store_true", help="change .env in this project")

    def handle(self, *args: Any, write: bool, **options: Any) -> None:
        fresh = {name: good_secret() for name in NAMES}
        if not write:
            for name, secret in fresh.items():
                self.stdout.write(f"{name}={secret}")
            return
        path = Path(settings.BASE_DIR, ".env")
        found = read_dotenv(path)
        if found.faults:
            raise CommandError("\n".join(found.describe(number) for number in found.faults))
        text = read_text(path) if path.exists() else ""
        for name, secret in fresh.items():
            old = found.values.get(name, "")
            if old and not list(secret_faults(old)):
                earlier = [old, *split_names(found.values.get(f"{name}_FALLBACKS", ""))]
                text = with_value(text, f"{name}_FALLBACKS", ",".join(earlier))
            text = with_value(text, name, secret)
        write_private(path, text)
        self.stdout.write(f"Wrote {', '.join(NAMES)} to {path.name}.")


def good_secret() -> str:
    """Return 43 letters, digits, `_` and `-` (256 bits) that satisfy the rules."""
    while True:
        secret = secrets.token_urlsafe(32)
        if not list(secret_faults(secret)):
            return secret


def with_value(text: str, name: str, value: str) -> str:
    """Replace the line of a variable, or append it."""
    line = f"{name}={value}"
    pattern = re.compile(rf"^(export )?{name}=.*$", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(rf"\g<1>{line}", text)
    end = "" if text.endswith("\n") or not text else "\n"
    return f"{text}{end}{line}\n"

import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from config.checks import secret_faults

NAMES = ("SECRET", "ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET")


class Command(BaseCommand):
    help = (
        "Print three good secrets as lines for .env. With --write, put them into .env; a secret "
        "that stood there goes on verifying what it signed, as the first of its _FALLBACKS."
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
        text = path.read_text() if path.exists() else ""
        for name, secret in fresh.items():
            old = value_of(text, name)
            if old and not list(secret_faults(old)):
                earlier = [old, *filter(None, value_of(text, f"{name}_FALLBACKS").split(","))]
                text = with_value(text, f"{name}_FALLBACKS", ",".join(earlier))
            text = with_value(text, name, secret)
        write_private(path, text)
        self.stdout.write(f"Wrote {', '.join(NAMES)} to {path.name}.")


def good_secret() -> str:
    """Return 43 letters, digits, `_` and `-` (256 bits) that pass the rules."""
    while True:
        secret = secrets.token_urlsafe(32)
        if not list(secret_faults(secret)):
            return secret


def value_of(text: str, name: str) -> str:
    """Return what a `.env` says of a variable, without quotes; the last line counts."""
    values = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]
    return values[-1].strip().strip("'\"") if values else ""


def with_value(text: str, name: str, value: str) -> str:
    """Set a variable where it stands, or at the end."""
    line = f"{name}={value}"
    lines = text.splitlines()
    places = [n for n, existing in enumerate(lines) if existing.startswith(f"{name}=")]
    for place in places:
        lines[place] = line
    return "\n".join(lines if places else [*lines, line]) + "\n"


def write_private(path: Path, text: str) -> None:
    """Replace a file whole, readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)

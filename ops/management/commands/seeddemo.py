from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Model
from django.utils.module_loading import module_has_submodule
from tqdm import tqdm

BATCH = 10_000

Make = Callable[[range, Sequence[Model]], Iterable[Model]]


class Command(BaseCommand):
    help = (
        "Add demo rows. The users are demo1, demo2, …; accounts/demo.py has their password. "
        "Each run keeps existing users and adds the other rows. "
        "The module `demo` of an app defines its rows. "
        "Without DEBUG it requires --force, because the password is public."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name, (default, _) in rows_of_apps().items():
            text = f"number of rows (default {default})"
            parser.add_argument(f"--{name}", type=int, default=default, help=text)
        parser.add_argument("--force", action="store_true", help="run without DEBUG")

    def handle(self, *args: Any, force: bool, **options: Any) -> None:
        if not (settings.DEBUG or force):
            raise CommandError(
                "seeddemo creates accounts with a public password, so it requires DEBUG or --force."
            )
        rows = rows_of_apps()
        for name, (_, make) in rows.items():
            self.add(name, make, options[name])
        added = ", ".join(f"{options[name]} {name}" for name in rows)
        self.stdout.write(f"Added up to {added}.")

    def add(self, name: str, make: Make, count: int) -> None:
        owners = list(get_user_model().objects.filter(username__startswith="demo").order_by("pk"))
        if count and not owners and name != "users":
            raise CommandError("No demo users exist; add some with --users.")
        with tqdm(total=count, desc=name, disable=None) as progress:
            for first in range(1, count + 1, BATCH):
                numbers = range(first, min(first + BATCH, count + 1))
                rows = list(make(numbers, owners))
                type(rows[0])._default_manager.bulk_create(rows, ignore_conflicts=True)
                progress.update(len(rows))


def rows_of_apps() -> dict[str, tuple[int, Make]]:
    """Return `demo.ROWS` of all apps: the default number and the function for each name."""
    found: dict[str, tuple[int, Make]] = {}
    for app in apps.get_app_configs():
        if app.module and module_has_submodule(app.module, "demo"):
            found |= import_module(f"{app.name}.demo").ROWS
    return found

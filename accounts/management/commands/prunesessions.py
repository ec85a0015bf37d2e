from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from tqdm import tqdm

from accounts.models import Event, Session


class Command(BaseCommand):
    help = (
        "Delete sessions that have been over (ended or expired) for SESSION_RETENTION_DAYS, and "
        "events that are older than EVENT_RETENTION_DAYS. "
        "It works in batches, and two runs at once share the work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count them and delete nothing")
        parser.add_argument("--batch", type=int, default=500, help="rows at a time (default 500)")

    def handle(self, *args: Any, dry_run: bool, batch: int, **options: Any) -> None:
        sessions, events = Session.objects.all(), Event.objects.all()
        for name, rows, age in (
            ("session", sessions.over(settings.SESSION_RETENTION), settings.SESSION_RETENTION),
            ("event", events.older(settings.EVENT_RETENTION), settings.EVENT_RETENTION),
        ):
            total = rows.count()
            if dry_run:
                self.stdout.write(f"{total} {name}(s) would be deleted.")
                continue
            deleted = 0
            with tqdm(total=total, unit=name, disable=None) as progress:
                for count in rows.model.objects.prune(age, batch=batch):
                    deleted += count
                    progress.update(count)
            self.stdout.write(f"{deleted} {name}(s) deleted.")

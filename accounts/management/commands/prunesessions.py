from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session as ConsoleSession
from django.core.management.base import BaseCommand
from django.db.models.functions import Now
from tqdm import tqdm

from accounts.models import ApiToken, Event, OutgoingEmail, Session, Ticket, TOTPDevice
from accounts.models.batches import prune
from accounts.models.tickets import KEPT_AFTER_END


class Command(BaseCommand):
    help = (
        "Delete sessions and API tokens that ended or expired more than SESSION_RETENTION_DAYS "
        "ago, events that are older than EVENT_RETENTION_DAYS, emails that are older than "
        "EMAIL_RETENTION_DAYS, tickets that ended more than a day ago, authenticator apps that "
        "nobody confirmed, and the console's expired sessions. It works in batches, and two runs "
        "at once share the work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count them and delete nothing")
        parser.add_argument("--batch", type=int, default=500, help="rows at a time (default 500)")

    def handle(self, *args: Any, dry_run: bool, batch: int, **options: Any) -> None:
        session_age, event_age = settings.SESSION_RETENTION, settings.EVENT_RETENTION
        for name, rows in (
            ("session", Session.objects.ended_before(session_age)),
            ("API token", ApiToken.objects.expired_before(session_age)),
            ("event", Event.objects.older(event_age).order_by("created_at")),
            ("email", OutgoingEmail.objects.older(settings.EMAIL_RETENTION)),
            ("ticket", Ticket.objects.ended(KEPT_AFTER_END)),
            ("unconfirmed authenticator app", TOTPDevice.objects.abandoned()),
            ("console session", ConsoleSession.objects.filter(expire_date__lt=Now())),
        ):
            total = rows.count()
            if dry_run:
                self.stdout.write(f"{total} {name}(s) would be deleted.")
                continue
            deleted = 0
            with tqdm(total=total, unit=name, disable=None) as progress:
                for count in prune(rows, size=batch):
                    deleted += count
                    progress.update(count)
            self.stdout.write(f"{deleted} {name}(s) deleted.")

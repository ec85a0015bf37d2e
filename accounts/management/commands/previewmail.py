import uuid
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from accounts.emails import build, open_mailer
from accounts.models import Event, OutgoingEmail, Ticket
from accounts.models.email_kinds import UNDOABLE, purpose_of
from accounts.models.tickets import lifetime

ADDRESS = "alice@example.com"


class Command(BaseCommand):
    help = "Write an example of every kind of email into the development mailbox."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.MAILBOX:
            raise CommandError("This needs DEBUG and EMAIL_URL=filemail:///path (or unset).")
        with open_mailer() as mailer:
            for kind in OutgoingEmail.Kind:
                mailer.send_messages([build(example(kind))])
        self.stdout.write(f"{len(OutgoingEmail.Kind)} emails written to {settings.MAILBOX}.")


def example(kind: str) -> OutgoingEmail:
    """Return an email that is in no table; its link opens nothing."""
    now = timezone.now()
    event = Event(username="alice", created_at=now, ip_address="192.0.2.7", detail="")
    event.device = "Firefox on Linux"
    ticket = None
    if purpose := purpose_of(kind, with_undo=kind in UNDOABLE):
        ticket = Ticket(purpose=purpose, address=ADDRESS, created_at=now)
        ticket.expires_at = now + lifetime(purpose)
    return OutgoingEmail(
        id=uuid.uuid4(), kind=kind, address=ADDRESS, ticket=ticket, event=event, created_at=now
    )

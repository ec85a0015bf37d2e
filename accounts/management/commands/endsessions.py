from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Session, User


class Command(BaseCommand):
    help = (
        "End every active session of a user, or of all users, at once: their access tokens and "
        "their console sessions stop working with the next request. The reason is recorded as "
        "ended by staff."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("identity", nargs="?", help="a username or an e-mail address")
        whose.add_argument("--all", action="store_true", help="of all users")

    def handle(self, *args: Any, identity: str | None, **options: Any) -> None:
        users = User.objects.all()
        if identity is not None:
            user = User.objects.with_identity(identity)
            if user is None:
                raise CommandError(f"There is no user {identity!r}.")
            users = users.filter(pk=user.pk)
        self.stdout.write(f"{users.end_sessions(Session.Reason.STAFF)} session(s) ended.")

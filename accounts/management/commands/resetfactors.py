from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User


class Command(BaseCommand):
    help = (
        "Remove all second factors and recovery codes of a user at once, and send the user a "
        "notice. For the operator, where nobody can sign in to the console: staff begin a reset "
        "there, which takes effect after FACTOR_RESET_HOURS and can be cancelled. Make sure who "
        "asks for it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("identity", help="a username or an e-mail address")

    def handle(self, *args: Any, identity: str, **options: Any) -> None:
        user = User.objects.with_identity(identity)
        if user is None:
            raise CommandError(f"There is no user {identity!r}.")
        if not user.reset_factors():
            raise CommandError(f"{user} has no second factor.")
        self.stdout.write(f"All second factors of {user} were removed.")

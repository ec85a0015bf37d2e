from typing import Any

from django.contrib.auth.management.commands import changepassword
from django.core.management import CommandError

from accounts.models import PasswordUnchangedError


class Command(changepassword.Command):
    def handle(self, *args: Any, **options: Any) -> str:
        try:
            return str(super().handle(*args, **options))
        except PasswordUnchangedError as error:
            raise CommandError("The new password must differ from the current one.") from error

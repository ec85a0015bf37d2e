import os
from typing import Any

from django.contrib.auth.management.commands import createsuperuser
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError


class Command(createsuperuser.Command):
    """Django's command, with validation of the password of --noinput."""

    def handle(self, *args: Any, **options: Any) -> str | None:
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
        if not options["interactive"] and password is not None:
            try:
                validate_password(password, self.new_user(options))
            except ValidationError as error:
                reasons = " ".join(error.messages)
                raise CommandError(f"DJANGO_SUPERUSER_PASSWORD: {reasons}") from error
        return super().handle(*args, **options)

    def new_user(self, options: dict[str, Any]) -> Any:
        """Return the unsaved user, for the comparison with the password."""
        model: Any = self.UserModel
        names = (model.USERNAME_FIELD, *model.REQUIRED_FIELDS)
        values = {n: options[n] or os.environ.get(f"DJANGO_SUPERUSER_{n.upper()}") for n in names}
        return model(**values)

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import TOTPDevice


class Command(BaseCommand):
    help = (
        "Encrypt the secrets of authenticator apps anew that are encrypted under a secret of "
        "SECRET_FALLBACKS. Run it before you remove a secret from there."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        rotated, unreadable = TOTPDevice.objects.rotate()
        self.stdout.write(f"{rotated} secret(s) encrypted anew.")
        if unreadable:
            raise CommandError(
                f"{unreadable} secret(s) cannot be decrypted: a former SECRET is missing in "
                "SECRET_FALLBACKS. Their users can sign in with a recovery code."
            )

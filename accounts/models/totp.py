"""Authenticator apps: time-based one-time codes of RFC 6238 (SHA-1, 6 digits, 30 seconds)."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyotp
from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare

from accounts.encryption import DecryptionError, decrypt, encrypt, is_current
from accounts.models.batches import key_batches

if TYPE_CHECKING:
    from accounts.models import User

logger = logging.getLogger(__name__)
PENDING = timedelta(minutes=10)
NEVER = -1  # the step of a code that is wrong


class TOTPQuerySet(models.QuerySet["TOTPDevice"]):
    def confirmed(self) -> "TOTPQuerySet":
        return self.filter(confirmed_at__isnull=False)

    def pending(self) -> "TOTPQuerySet":
        return self.filter(confirmed_at=None, created_at__gt=Now() - PENDING)

    def abandoned(self) -> "TOTPQuerySet":
        return self.filter(confirmed_at=None, created_at__lte=Now() - PENDING)

    def begin(self, user: "User") -> str:
        """Return the secret of a new device, which replaces one that was not confirmed."""
        self.filter(user=user, confirmed_at=None).delete()
        secret = pyotp.random_base32()  # 160 bits
        self.create(user=user, secret=encrypt(secret))
        return secret

    def outdated(self) -> Iterator["TOTPDevice"]:
        """Yield the devices whose secret was not encrypted under SECRET, but under a fallback."""
        for keys in key_batches(self):
            yield from (d for d in self.filter(pk__in=keys) if not is_current(d.secret))

    def rotate(self) -> tuple[int, int]:
        """
        Encrypt the outdated secrets under SECRET.

        Returns the number of those, and of the secrets that no configured secret decrypts.
        """
        rotated = unreadable = 0
        for device in self.outdated():
            try:
                secret = encrypt(decrypt(device.secret))
            except DecryptionError:
                unreadable += 1
            else:
                rotated += self.filter(pk=device.pk).update(secret=secret)
        return rotated, unreadable


class TOTPDevice(models.Model):
    """An authenticator app of a user; it counts as a factor once a code has confirmed it."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="totp_devices", editable=False
    )
    secret = models.TextField(editable=False)  # encrypted
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    confirmed_at = models.DateTimeField(null=True, editable=False)
    # The step of the last code that was used: that code, and those before it, are rejected.
    last_step = models.BigIntegerField(default=0, db_default=0, editable=False)

    objects = TOTPQuerySet.as_manager()

    class Meta:
        verbose_name = "authenticator app"
        constraints = [
            models.UniqueConstraint(
                fields=["user"],
                condition=models.Q(confirmed_at__isnull=False),
                name="accounts_totp_confirmed_once",
            ),
            models.UniqueConstraint(
                fields=["user"],
                condition=models.Q(confirmed_at=None),
                name="accounts_totp_pending_once",
            ),
        ]

    def __str__(self) -> str:
        return f"authenticator app of {self.user}"

    def confirm(self, step: int, now: datetime) -> None:
        self.confirmed_at, self.last_step = now, step
        self.save(update_fields=["confirmed_at", "last_step"])


def step_of(encrypted: str, code: str, now: datetime) -> int:
    """
    Return the step that a code belongs to: the present one, the one before or the one after.

    Of any other code it is NEVER. Without this window a clock that differs by seconds would reject
    right codes.
    """
    try:
        totp = pyotp.TOTP(decrypt(encrypted))
    except DecryptionError:
        logger.error("A TOTP secret was encrypted under a SECRET that is not configured any more.")  # noqa: TRY400 - the traceback says no more
        return NEVER
    present = totp.timecode(now)
    steps = range(present - 1, present + 2)
    matching = [s for s in steps if constant_time_compare(totp.generate_otp(s), code)]
    return max(matching, default=NEVER)


def uri_of(secret: str, user: "User") -> str:
    """Return the `otpauth://` URI that an authenticator app reads, as a QR code or a link."""
    return pyotp.TOTP(secret).provisioning_uri(
        name=user.username, issuer_name=settings.PROJECT_NAME
    )

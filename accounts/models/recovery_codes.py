"""
Recovery codes: ten codes that each work once, in place of a lost authenticator app.

A code has 120 random bits, so a plain digest keeps it secret. It is written in Crockford's base 32,
which has no letters that look like digits.
"""

import hashlib
import re
import secrets
from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import connection, models
from django.db.models.functions import Now

if TYPE_CHECKING:
    from accounts.models import User

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH, NUMBER = 24, 10
LONGEST_CODE = 64  # characters as typed
MISREAD = str.maketrans("ILO", "110")

USE = """
    UPDATE accounts_recoverycode SET used_at = clock_timestamp()
     WHERE user_id = %s AND digest = %s AND used_at IS NULL
 RETURNING created_at
"""


def normal_form(code: str) -> str:
    """Return a code as typed without spaces and dashes, in upper case; "" if it is too long."""
    return re.sub(r"[\s-]", "", code).upper() if len(code) <= LONGEST_CODE else ""


def digest_of(code: str) -> str:
    return hashlib.sha256(code.translate(MISREAD).encode(errors="replace")).hexdigest()


class RecoveryCodeQuerySet(models.QuerySet["RecoveryCode"]):
    def unused(self) -> "RecoveryCodeQuerySet":
        return self.filter(used_at=None)

    def replace(self, user: "User") -> list[str]:
        """Return ten new codes of a user; all earlier ones become invalid."""
        codes = ["".join(secrets.choice(ALPHABET) for _ in range(LENGTH)) for _ in range(NUMBER)]
        self.filter(user=user).delete()
        self.bulk_create([RecoveryCode(user=user, digest=digest_of(code)) for code in codes])
        return ["-".join(re.findall("....", code)) for code in codes]

    def use(self, user: "User", code: str) -> datetime | None:
        """Use a code in its normal form; return when it was issued, or None if it is invalid."""
        with connection.cursor() as cursor:
            cursor.execute(USE, [user.pk, digest_of(code)])
            row = cursor.fetchone()
        return row[0] if row else None


class RecoveryCode(models.Model):
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        related_name="recovery_codes",
        db_index=False,
        editable=False,
    )
    digest = models.CharField(max_length=64, editable=False)  # SHA-256 in hexadecimal
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    used_at = models.DateTimeField(null=True, editable=False)

    objects = RecoveryCodeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "digest"], name="accounts_recoverycode_unique"),
        ]

    def __str__(self) -> str:
        return f"recovery code of {self.user}"

"""How users are found, created and signed out, one or many at a time."""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import BaseUserManager
from django.contrib.auth.password_validation import validate_password
from django.db import connection, models, transaction
from django.db.models import F

from accounts.identities import lookup_form
from accounts.models.batches import key_batches
from accounts.models.compiled import CompiledQuery
from accounts.models.outbox import OutgoingEmail
from accounts.models.session_tokens import load_user, user_fields
from accounts.models.sessions import Session
from accounts.models.tickets import Ticket

if TYPE_CHECKING:
    from accounts.models import User


class UserQuerySet(models.QuerySet["User"]):
    def end_sessions(self, reason: str) -> int:
        """
        End every session of these users, in the console too, and return the number of the API's.

        The users are locked first, so no login of theirs can end up in between.
        """
        ended = 0
        for keys in key_batches(self):
            users = self.model.objects.filter(pk__in=keys)
            with transaction.atomic():
                list(users.select_for_update(no_key=True).order_by("pk").values_list("pk"))
                users.update(session_epoch=F("session_epoch") + 1)
                ended += Session.objects.filter(user__in=keys).active().end(reason)
        return ended


class UserManager(BaseUserManager["User"]):
    def with_identity(self, identity: str) -> "User | None":
        """Return the user with this username or e-mail address, in any letter case."""
        return self.identify(identity)[1]

    def identify(self, identity: str) -> tuple[str, "User | None"]:
        """
        Return an identity in lower case, and the user that it names, if any.

        It is one statement, and the same one whether or not there is such a user.
        """
        form = lookup_form(identity)
        field = "email" if "@" in form else "username"
        query = user_query()
        with connection.cursor() as cursor:
            cursor.execute(IDENTIFY.format(columns=query.columns, field=field), [form])
            folded, is_known, *row = cursor.fetchone()
        return folded, load_user(query.values(row)) if is_known else None

    def create_user(self, username: str, email: str, password: str, **fields: Any) -> "User":
        """
        Create a user; raises ValidationError, or IntegrityError where an identity is taken.

        The password's rules are for a form or a serializer to check first.
        """
        user = self.model(username=username, email=email, **fields)
        user.clean_fields(exclude=self.not_given(fields))
        user.set_password(password)
        user.save(using=self._db)
        return user

    def register(self, *, password: str, ticket: Ticket | None = None, **fields: Any) -> "User":
        """
        Create a user who signs up; raises as `create_user` does.

        A `register` ticket proves the address. Without one the user gets an email to verify it.
        Raises TicketError where the ticket has been used meanwhile.
        """
        user = self.model(**fields)
        user.clean_fields(exclude=self.not_given(fields))
        user.set_password(password)  # Not in the transaction: hashing takes a second.
        with transaction.atomic():
            if ticket:
                ticket.use()
                user.email_verified_at = ticket.used_at
            user.save(using=self._db)
            if not ticket:
                OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.VERIFY_EMAIL, user)
        return user

    def create_superuser(
        self, username: str, email: str, password: str | None = None, **fields: Any
    ) -> "User":
        """Create a user who may do everything, without a password too; raises ValidationError."""
        user = self.model(username=username, email=email, **fields)
        user.is_staff = user.is_superuser = True
        user.full_clean(exclude=self.not_given(fields))
        if password is not None:
            validate_password(password, user)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def not_given(self, fields: Iterable[str]) -> set[str]:
        """Return the fields to leave unvalidated: the password, and defaults such as {}."""
        given = {"username", "email", *fields}
        return {field.name for field in self.model._meta.fields} - given


# The ORM has no join from a value. Both sides are lower-cased by the database.
IDENTIFY = """
    SELECT identity.folded, accounts_user.id IS NOT NULL, {columns}
      FROM (SELECT lower(%s::text) AS folded) AS identity
      LEFT JOIN accounts_user ON lower(accounts_user.{field}) = identity.folded
"""


@functools.cache
def user_query() -> CompiledQuery:
    return CompiledQuery(get_user_model().objects.values_list(*user_fields()))

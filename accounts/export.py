"""What `GET /users/me/export` has of an account, without hashes, tokens and their identifiers."""

from collections.abc import Iterator
from typing import Any

from accounts.models import Event, Session, User
from accounts.serializers.api_tokens import ApiTokenSerializer
from accounts.serializers.exports import (
    ExportedAccountSerializer,
    ExportedEmailSerializer,
    ExportedSessionSerializer,
)
from accounts.serializers.passkeys import PasskeySerializer
from accounts.serializers.sessions import EventSerializer
from api.exports import Export, parts_of, rows


def begin(user: User, session: Session) -> Export:
    """Record an export and return its chunks; raises ExportBusyError."""
    export = Export(parts_of(user))
    try:
        Event.objects.record(Event.Kind.EXPORTED, user, session=session)
    except Exception:
        export.close()
        raise
    return export


def parts(user: User) -> Iterator[tuple[str, Any]]:
    yield "account", ExportedAccountSerializer(user).data
    # A session that is used meanwhile moves to the end.
    yield "sessions", rows(user.sessions.order_by("last_used_at", "pk"), ExportedSessionSerializer)
    events = Event.objects.filter(user_id=user.pk)
    yield "events", rows(events.order_by("created_at", "pk"), EventSerializer)
    yield "emails", rows(user.emails.order_by("created_at", "pk"), ExportedEmailSerializer)
    yield "factors", factors(user)
    yield "tokens", rows(user.api_tokens.order_by("created_at", "pk"), ApiTokenSerializer)


def factors(user: User) -> Iterator[dict[str, Any]]:
    """Yield the second factors, by kind and name."""
    for device in user.totp_devices.confirmed():
        yield {"method": "totp", "created_at": device.confirmed_at}
    for code in user.recovery_codes.order_by("pk"):
        yield {"method": "recovery_code", "created_at": code.created_at, "used_at": code.used_at}
    for passkey in user.passkeys.order_by("created_at", "pk"):
        yield {"method": "passkey", **PasskeySerializer().to_representation(passkey)}

"""Rows of accounts for `manage.py seeddemo`."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from uuid import uuid4

from django.contrib.auth.hashers import make_password
from django.utils import timezone

from accounts.models import Event, Session, User

PASSWORD = "a sunny day in May"  # noqa: S105 - public by intent
DEVICES = ["Firefox on Linux", "Chrome on Windows", "Safari on Mac OS X", "Mobile Safari on iOS"]
KINDS = {  # kind: (detail, share)
    Event.Kind.SIGNED_IN: ("", 60),
    Event.Kind.REFUSED: ("wrong password", 15),
    Event.Kind.SIGNED_OUT: ("logout", 20),
    Event.Kind.LIMIT_REACHED: ("auth", 2),
    Event.Kind.CREATED: ("", 2),
    Event.Kind.REPLAYED: ("", 1),
}


def users(numbers: range, owners: Sequence[User]) -> Iterator[User]:
    password = make_password(PASSWORD)  # One hash for all: at cost 14 each takes a second.
    for n in numbers:
        joined = timezone.now() - timedelta(days=90 * random.random())
        yield User(
            username=f"demo{n}",
            email=f"demo{n}@example.com",
            names=f"Demo {n}",
            password=password,
            date_joined=joined,
            password_changed_at=joined,
        )


def sessions(numbers: range, owners: Sequence[User]) -> Iterator[Session]:
    now = timezone.now()
    for n in numbers:
        started = now - timedelta(days=20 * random.random())
        has_ended = n % 3 == 0
        yield Session(
            id=uuid4(),
            user=owners[n % len(owners)],
            user_agent="seeddemo",
            device=DEVICES[n % len(DEVICES)],
            ip_address=address(n),
            created_at=started,
            last_used_at=started,
            expires_at=started + timedelta(days=7),
            ended_at=min(started + timedelta(days=1), now) if has_ended else None,
            end_reason=Session.Reason.LOGOUT if has_ended else "",
        )


def events(numbers: range, owners: Sequence[User]) -> Iterator[Event]:
    now = timezone.now()
    shares = [share for _, share in KINDS.values()]
    for n in numbers:
        [kind] = random.choices(list(KINDS), shares)
        owner = owners[n % len(owners)]
        yield Event(
            created_at=now - timedelta(days=30 * random.random()),
            kind=kind,
            detail=KINDS[kind][0],
            user_id=owner.pk,
            username=owner.username,
            ip_address=address(n),
            device=DEVICES[n % len(DEVICES)],
            is_new_device=kind == Event.Kind.SIGNED_IN and n % 7 == 0,
            request_id=f"{random.getrandbits(128):032x}",
        )


def address(n: int) -> str:
    return f"198.51.{n // 250 % 250}.{n % 250}"


ROWS = {"users": (20, users), "sessions": (100, sessions), "events": (2000, events)}

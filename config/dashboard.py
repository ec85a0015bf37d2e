"""
The numbers and plots of the console's first page.

Each is a count over an index, or over one day of it; a day that is over does not change, so it is
counted once and kept. The whole page is at most `FRESH` seconds old.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.core.cache import cache
from django.db.models import Count
from django.db.models.functions import TruncDay, TruncHour
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format

from accounts.models import Event, Session

FRESH = 10  # seconds
HOURS, DAYS = 24, 30
TOP = 5
COUNTED = (
    (Event.Kind.SIGNED_IN, "Sign-ins", "good"),
    (Event.Kind.REFUSED, "Refused", "bad"),
    (Event.Kind.REPLAYED, "Replays", "bad"),
    (Event.Kind.LIMIT_REACHED, "Limits reached", "bad"),
    (Event.Kind.CREATED, "New accounts", "none"),
)
KINDS = [kind for kind, _, _ in COUNTED]
WIDTH, HEIGHT = 720, 160  # of a plot, in its own units

Counts = dict[datetime, dict[str, int]]


@dataclass
class Number:
    label: str
    value: int
    to: str
    meaning: str = "none"


@dataclass
class Bar:
    """A stack of sign-ins and, on top, refusals, at its place in a plot."""

    x: float
    width: float
    y: float
    refused_height: float
    signed_in_height: float
    label: str
    title: str

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def signed_in_y(self) -> float:
        return self.y + self.refused_height


@dataclass
class Plot:
    title: str
    bars: list[Bar]
    highest: int
    width: int = WIDTH
    height: int = HEIGHT


def dashboard() -> dict[str, Any]:
    """Return what the page shows, computed anew no more often than every `FRESH` seconds."""
    return cast("dict[str, Any]", cache.get_or_set("dashboard", compute, FRESH))


def compute() -> dict[str, Any]:
    now = timezone.now()
    hours = counts(TruncHour, now.replace(minute=0, second=0, microsecond=0), HOURS, "hour")
    since = min(hours)
    active = Session.objects.active()
    users = active.aggregate(users=Count("user", distinct=True), sessions=Count("*"))
    return {
        "since": since,
        "numbers": [
            Number("Active sessions", users["sessions"], sessions_link(state="active"), "good"),
            Number("Users signed in", users["users"], sessions_link(state="active")),
            *(
                Number(label, sum(of.get(kind, 0) for of in hours.values()), link, meaning)
                for kind, label, meaning in COUNTED
                for link in [events_link(kind, since)]
            ),
        ],
        "plots": [
            plot("The last 24 hours", hours, "H:i"),
            plot("The last 30 days", days(now), "j M"),
        ],
        "refused": [
            ("Most refused users", most("username", since)),
            ("Most refused addresses", most("ip_address", since)),
        ],
    }


def counts(trunc: Any, last: datetime, number: int, unit: str) -> Counts:
    """Count the kinds of events in each of the `number` hours or days up to the last."""
    step = timedelta(hours=1) if unit == "hour" else timedelta(days=1)
    counted: Counts = {last - step * n: {} for n in reversed(range(number))}
    rows = (
        Event.objects.filter(kind__in=KINDS, created_at__gte=min(counted))
        .annotate(at=trunc("created_at"))
        .values_list("at", "kind")
        .annotate(number=Count("*"))
    )
    for at, kind, found in rows.order_by():
        counted.setdefault(at, {})[kind] = found
    return counted


def days(now: datetime) -> Counts:
    """Count the days; those that are over come from the cache once they have been counted."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    keys = {f"dashboard:{today - timedelta(days=n):%Y-%m-%d}": n for n in range(1, DAYS)}
    kept: dict[str, Any] = cache.get_many(keys)
    missing = [number for key, number in keys.items() if key not in kept]
    found = counts(TruncDay, today, max(missing, default=0) + 1, "day")
    fresh = {
        key: found[today - timedelta(days=number)]
        for key, number in keys.items()
        if number in missing
    }
    cache.set_many(fresh, DAYS * 24 * 3600)
    known = kept | fresh
    return {today - timedelta(days=n): known[key] for key, n in sorted(keys.items())} | {
        today: found[today]
    }


def plot(title: str, counted: Counts, form: str) -> Plot:
    stacks = [
        (at, kinds.get(Event.Kind.SIGNED_IN, 0), kinds.get(Event.Kind.REFUSED, 0))
        for at, kinds in sorted(counted.items())
    ]
    highest = max(signed_in + refused for _, signed_in, refused in stacks)
    pitch = WIDTH / len(stacks)
    return Plot(title, list(bars(stacks, pitch, HEIGHT / max(highest, 1), form)), highest)


def bars(
    stacks: list[tuple[datetime, int, int]], pitch: float, scale: float, form: str
) -> Iterable[Bar]:
    every = len(stacks) // 6
    for number, (at, signed_in, refused) in enumerate(stacks):
        when = date_format(at, form)
        yield Bar(
            x=number * pitch + pitch * 0.15,
            width=pitch * 0.7,
            y=HEIGHT - (signed_in + refused) * scale,
            refused_height=refused * scale,
            signed_in_height=signed_in * scale,
            label=when if (len(stacks) - 1 - number) % every == 0 else "",
            title=f"{when}: {signed_in} sign-ins, {refused} refused",
        )


def most(column: str, since: datetime) -> list[tuple[str, int, str]]:
    """Return who or what was refused most often, how often, and the list of it."""
    events = Event.objects.filter(kind=Event.Kind.REFUSED, created_at__gte=since).exclude(
        **{column: None if column == "ip_address" else ""}
    )
    rows = events.values_list(column).annotate(number=Count("*")).order_by("-number", column)[:TOP]
    return [
        (name, number, events_link(Event.Kind.REFUSED, since, **{f"{column}__exact": name}))
        for name, number in rows
    ]


def events_link(kind: str, since: datetime, **query: str) -> str:
    query = {"kind__exact": kind, "created_at__gte": since.isoformat(timespec="seconds"), **query}
    return reverse("admin:accounts_event_changelist", query=query)


def sessions_link(**query: str) -> str:
    return reverse("admin:accounts_session_changelist", query=query)

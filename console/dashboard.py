"""
The numbers and plots of the console's first page.

Each number is a count of index entries. A past day does not change, so it is counted once and
cached. The page is at most `CACHE_SECONDS` old. The cache contains only counts and names, which are
validated, so write access to Redis cannot break the page or inject links.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Min
from django.db.models.functions import Now, TruncDay, TruncHour
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Event, OutgoingEmail, Session, User
from api.parsers import is_unstorable

CACHE_SECONDS = 10  # seconds
HOURS, DAYS = 24, 30
TOP = 5
LATE = 10  # minutes
COUNTED = (
    (Event.Kind.SIGNED_IN, gettext_lazy("Sign-ins"), "good"),
    (Event.Kind.REFUSED, gettext_lazy("Rejected"), "bad"),
    (Event.Kind.REPLAYED, gettext_lazy("Replays"), "bad"),
    (Event.Kind.LIMIT_REACHED, gettext_lazy("Limits reached"), "bad"),
    (Event.Kind.CREATED, gettext_lazy("New accounts"), "none"),
)
KINDS = [kind for kind, _, _ in COUNTED]
WIDTH, HEIGHT = 720, 160  # of a plot, in SVG units

LARGEST_COUNT = 2**53
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOUR_KEY, DAY_KEY = "hour:%Y-%m-%dT%H", "dashboard:%Y-%m-%d"

Counts = dict[str, int]  # by event kind, user or address


@dataclass
class Number:
    label: str
    value: int
    url: str
    style: str = "none"


@dataclass
class Bar:
    """A stacked bar of a plot: sign-ins below, rejections on top."""

    x: float
    width: float
    y: float
    rejected_height: float
    signed_in_height: float
    label: str
    title: str

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def signed_in_y(self) -> float:
        return self.y + self.rejected_height


@dataclass
class Plot:
    title: str
    bars: list[Bar]
    highest: int
    width: int = WIDTH
    height: int = HEIGHT


def dashboard(*, with_emails: bool = False) -> dict[str, Any]:
    """Return the context of the page; count again after `CACHE_SECONDS`."""
    now = timezone.now()
    counts = cache.get("dashboard")
    if not (isinstance(counts, dict) and all(map(are_valid_counts, counts.values()))):
        counts = count(now)
        cache.set("dashboard", counts, CACHE_SECONDS)
    shown = page(counts, now)
    if with_emails:
        shown["sees_emails"] = True
        shown["numbers"] += email_numbers(counts.get("emails", {}))
    return shown


def are_valid_counts(value: Any) -> bool:
    """Return whether a cached value has the form that this module writes."""
    return (
        isinstance(value, dict)
        and all(type(number) is int and 0 <= number <= LARGEST_COUNT for number in value.values())
        and not is_unstorable(list(value))
    )


def count(now: datetime) -> dict[str, Counts]:
    """Return all counts of the page as JSON values."""
    active = Session.objects.active()
    since = times(now, HOURS, HOUR)[0]
    return {
        "active": active.aggregate(users=Count("user", distinct=True), sessions=Count("*")),
        "emails": count_emails(),
        "factors": {"users": User.objects.filter(has_second_factor=True).count()},
        "usernames": most_rejected("username", since),
        "addresses": most_rejected("ip_address", since),
        **count_events(TruncHour, since, HOUR_KEY),
        **count_days(now),
    }


def page(counts: dict[str, Counts], now: datetime) -> dict[str, Any]:
    hours, days = times(now, HOURS, HOUR), times(now, DAYS, DAY)
    since, active = hours[0], counts.get("active", {})
    by_hour = [(hour, counts.get(format(hour, HOUR_KEY), {})) for hour in hours]
    by_day = [(day, counts.get(format(day, DAY_KEY), {})) for day in days]
    return {
        "since": since,
        "numbers": [
            Number(
                _("Active sessions"),
                active.get("sessions", 0),
                sessions_link(state="active"),
                "good",
            ),
            Number(_("Users signed in"), active.get("users", 0), sessions_link(state="active")),
            Number(
                _("With a second factor"),
                counts.get("factors", {}).get("users", 0),
                reverse("admin:accounts_user_changelist", query={"has_second_factor__exact": "1"}),
            ),
            *(
                Number(
                    str(label),
                    sum(of.get(kind, 0) for _, of in by_hour),
                    events_link(kind, since),
                    style,
                )
                for kind, label, style in COUNTED
            ),
        ],
        "plots": [
            plot(_("The last 24 hours"), by_hour, "H:i"),
            plot(_("The last 30 days"), by_day, "j M"),
        ],
        "most_rejected": [
            (_("Most rejected users"), links("username", counts.get("usernames", {}), since)),
            (_("Most rejected addresses"), links("ip_address", counts.get("addresses", {}), since)),
        ],
    }


def email_numbers(emails: Counts) -> list[Number]:
    minutes = emails.get("oldest", 0) // 60
    url = reverse("admin:accounts_outgoingemail_changelist", query={"state": "due"})
    return [
        Number(_("Emails due"), emails.get("due", 0), url),
        Number(_("Oldest due (minutes)"), minutes, url, "bad" if minutes >= LATE else ""),
    ]


def count_emails() -> Counts:
    """Return the number of due emails, and the age of the oldest in seconds."""
    due = OutgoingEmail.objects.due().aggregate(number=Count("*"), age=Now() - Min("created_at"))
    return {"due": due["number"], "oldest": int(due["age"].total_seconds()) if due["age"] else 0}


def times(now: datetime, number: int, step: timedelta) -> list[datetime]:
    """Return the start of each of the last hours or days, including the current one."""
    last = now.replace(minute=0, second=0, microsecond=0)
    last = last if step == HOUR else last.replace(hour=0)
    return [last - step * n for n in reversed(range(number))]


def count_events(trunc: Any, since: datetime, key: str) -> dict[str, Counts]:
    """Return the counts by event kind of each hour or day; `key` formats the start as the name."""
    counted: dict[str, Counts] = {}
    rows = (
        Event.objects.filter(kind__in=KINDS, created_at__gte=since)
        .annotate(at=trunc("created_at"))
        .values_list("at", "kind")
        .annotate(number=Count("*"))
    )
    for at, kind, number in rows.order_by():
        counted.setdefault(format(at, key), {})[kind] = number
    return counted


def count_days(now: datetime) -> dict[str, Counts]:
    """Return the counts of each day; take past days from the cache if possible."""
    *ended, today = times(now, DAYS, DAY)
    keys = [format(day, DAY_KEY) for day in ended]
    cached = cache.get_many(keys)
    counts = {key: of for key, of in cached.items() if are_valid_counts(of)}
    missing = [day for day, key in zip(ended, keys, strict=True) if key not in counts]
    counted = count_events(TruncDay, min(missing, default=today), DAY_KEY)
    fresh = {key: counted.get(key, {}) for key in keys if key not in counts}
    cache.set_many(fresh, DAYS * 24 * 3600)
    return counted | counts | fresh


def plot(title: str, counted: list[tuple[datetime, Counts]], form: str) -> Plot:
    stacks = [
        (at, counts.get(Event.Kind.SIGNED_IN, 0), counts.get(Event.Kind.REFUSED, 0))
        for at, counts in counted
    ]
    highest = max(signed_in + rejected for _, signed_in, rejected in stacks)
    pitch = WIDTH / len(stacks)
    return Plot(title, list(bars(stacks, pitch, HEIGHT / max(highest, 1), form)), highest)


def bars(
    stacks: list[tuple[datetime, int, int]], pitch: float, scale: float, form: str
) -> Iterable[Bar]:
    every = len(stacks) // 6
    for number, (at, signed_in, rejected) in enumerate(stacks):
        when = date_format(at, form)
        yield Bar(
            x=number * pitch + pitch * 0.15,
            width=pitch * 0.7,
            y=HEIGHT - (signed_in + rejected) * scale,
            rejected_height=rejected * scale,
            signed_in_height=signed_in * scale,
            label=when if (len(stacks) - 1 - number) % every == 0 else "",
            title=f"{when}: {signed_in} sign-ins, {rejected} rejected",
        )


def most_rejected(column: str, since: datetime) -> Counts:
    """Return the users or addresses with the most rejections, and their counts."""
    events = Event.objects.filter(kind=Event.Kind.REFUSED, created_at__gte=since).exclude(
        **{column: None if column == "ip_address" else ""}
    )
    rows = events.values_list(column).annotate(number=Count("*")).order_by("-number", column)[:TOP]
    return dict(rows)


def links(column: str, counts: Counts, since: datetime) -> list[tuple[str, int, str]]:
    """Return each name with its count and the URL of its events."""
    return [
        (name, number, events_link(Event.Kind.REFUSED, since, **{f"{column}__exact": name}))
        for name, number in list(counts.items())[:TOP]
    ]


def events_link(kind: str, since: datetime, **query: str) -> str:
    query = {"kind__exact": kind, "created_at__gte": since.isoformat(timespec="seconds"), **query}
    return reverse("admin:accounts_event_changelist", query=query)


def sessions_link(**query: str) -> str:
    return reverse("admin:accounts_session_changelist", query=query)

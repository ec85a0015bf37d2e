"""What staff do to users, from the list of users and from a user's page."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin.pages import count
from accounts.models import Event, OutgoingEmail, User

Kind = OutgoingEmail.Kind
Change = Callable[[User], str]  # changes a locked user and returns a key of RESULTS

RESULTS = {
    "staff": (messages.ERROR, _("{number} of them are staff, whom only superusers change.")),
    "deleted": (messages.WARNING, _("{users} deleted meanwhile.")),
    "changed": (messages.SUCCESS, _("{users} changed.")),
    "queued": (messages.SUCCESS, _("{emails} queued.")),
    "verified": (messages.WARNING, _("{users} verified already.")),
    "held back": (
        messages.WARNING,
        _("No email for {users}: the account is inactive, or EMAIL_LIMIT is reached."),
    ),
    "no factor": (messages.WARNING, _("{users} without a second factor.")),
    "reset begun": (
        messages.SUCCESS,
        _("The factor reset of {users} takes effect after FACTOR_RESET_HOURS."),
    ),
    "reset pending": (messages.WARNING, _("The factor reset of {users} was begun before.")),
    "reset cancelled": (messages.SUCCESS, _("The factor reset of {users} was cancelled.")),
    "no reset": (messages.WARNING, _("No factor reset of {users} was pending.")),
    "disabled": (messages.ERROR, _("No email for {users}: email is disabled (EMAIL_URL=none).")),
}


def can_manage(request: HttpRequest, user: User | None) -> bool:
    """Tell whether staff may change this user: only superusers change staff."""
    return request.user.is_superuser or user is None or not (user.is_staff or user.is_superuser)


def change_all(request: HttpRequest, users: QuerySet[User], change: Change) -> None:
    """Change each user in a transaction of its own, and report how many had which result."""
    keys = users.values_list("pk", flat=True)
    results = Counter(change_one(request, pk, change) for pk in keys)
    for result, number in results.items():
        report(request, result, number)


def change_one(request: HttpRequest, pk: int, change: Change) -> str:
    """Change a user as they are now, and name the result."""
    with transaction.atomic():
        user = User.objects.select_for_update(no_key=True).filter(pk=pk).first()
        if user is None:
            return "deleted"
        return change(user) if can_manage(request, user) else "staff"


def report(request: HttpRequest, result: str, number: int = 1) -> None:
    level, text = RESULTS[result]
    numbers = {"users": count(number, "user"), "emails": count(number, "email")}
    messages.add_message(request, level, text.format(number=number, **numbers))


def set_state(**state: Any) -> Change:
    def change(user: User) -> str:
        was_forced = user.must_change_password
        for name, value in state.items():
            setattr(user, name, value)
        user.save(update_fields=[*state])
        if user.must_change_password and not was_forced:
            send_reset_link(user)
        return "changed"

    return change


def send_reset_link(user: User) -> str:
    """Send what the user's own request would send: staff choose and see no password."""
    result = enqueue(Kind.RESET_PASSWORD, user)
    if result == "queued":
        Event.objects.record(Event.Kind.PASSWORD_RESET_ASKED, user)
    return result


def send_verification(user: User) -> str:
    if user.email_verified:
        return "verified"
    result = enqueue(Kind.VERIFY_EMAIL, user)
    if result == "queued":
        Event.objects.record(Event.Kind.MAIL_REQUESTED, user, detail=Kind.VERIFY_EMAIL)
    return result


def begin_factor_reset(user: User) -> str:
    if user.factor_reset_at:
        return "reset pending"
    return "reset begun" if user.begin_factor_reset() else "no factor"


def cancel_factor_reset(user: User) -> str:
    if not user.factor_reset_at:
        return "no reset"
    user.cancel_factor_reset()
    return "reset cancelled"


def enqueue(kind: str, user: User) -> str:
    if not settings.EMAIL_ENABLED:
        return "disabled"
    return "queued" if OutgoingEmail.objects.enqueue(kind, user) else "held back"

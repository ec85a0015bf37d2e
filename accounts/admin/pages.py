"""What the console's pages share."""

import ipaddress
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from accounts.models import Session, UserQuerySet


def tag(text: str, meaning: str) -> SafeString:
    """Return a word in the colour of its meaning: good, bad or none."""
    return format_html('<span class="tag tag-{}">{}</span>', meaning, text)


def link(to: str, text: object, *args: Any, **query: Any) -> SafeString:
    address = reverse(f"admin:accounts_{to}", args=args, query=query or None)
    return format_html('<a href="{}">{}</a>', address, text)


def as_address(term: str) -> str | None:
    """Return an address in its one form, or None where the term is none."""
    try:
        return str(ipaddress.ip_address(term))
    except ValueError:
        return None


def moment(field: str, label: str) -> Callable[[Model], str]:
    """Return a column that shows a time to the minute."""

    @admin.display(description=label, ordering=field)
    def shown(row: Model) -> str:
        at = getattr(row, field)
        return date_format(timezone.localtime(at), "j M Y H:i") if at else ""

    return shown


class RecordAdmin(admin.ModelAdmin):
    """Rows that nobody adds, edits or deletes by hand."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def end_and_say(request: HttpRequest, end: Callable[[str], int]) -> None:
    ended = end(Session.Reason.STAFF)
    if ended:
        messages.success(request, f"{count(ended, 'session')} ended.")
    else:
        messages.warning(request, _("No session was active any more."))


def end_sessions_of(
    model_admin: admin.ModelAdmin, request: HttpRequest, users: UserQuerySet, action: str
) -> HttpResponse | None:
    """End every session of these users, once the number of both was seen and confirmed."""
    if "confirmed" in request.POST:
        end_and_say(request, users.end_sessions)
        return None
    sessions = Session.objects.filter(user__in=users.order_by().values("pk"))
    number = sessions.active().count()
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"End {count(number, 'session')} of {count(users.count(), 'user')}?",
        "users": users.order_by("username")[:50],
        "opts": model_admin.opts,
        "action": action,
        "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
        "checkbox": helpers.ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "admin/accounts/confirm_end.html", context)

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from accounts.admin.changes import can_manage
from accounts.admin.pages import RecordAdmin, count, link, moment, tag
from accounts.models import Event, OutgoingEmail, User

CREATED: Any = moment("created_at", "created")
FILTERS = frozenset(
    {"state", "user__id__exact", "kind__exact", "created_at__gte", "created_at__lt"}
)


def state_tag(email: OutgoingEmail) -> SafeString:
    if email.sent_at:
        return tag("sent", "good")
    if email.failed_at:
        return tag("failed", "bad")
    return tag("late", "bad") if email.error else tag("waiting", "none")


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("due", "due"), ("late", "late"), ("failed", "failed")]

    def queryset(self, request: HttpRequest, emails: Any) -> Any:
        selections = {"due": emails.due, "late": emails.late, "failed": emails.failed}
        select = selections.get(self.value() or "")
        return select() if select else emails


@admin.register(OutgoingEmail)
class EmailAdmin(RecordAdmin):
    """
    The outbox, without what strangers entered.

    An entered identity, and the address that it becomes, may be a password: neither is shown, and
    no search, filter or order depends on one.
    """

    list_display = [CREATED, "kind", "whose", "to", "state_tag", "attempts"]
    list_display += [moment("due_at", "due"), "reply"]
    sortable_by = [CREATED]
    list_display_links = ["kind"]
    list_filter = [StateFilter, "kind", "created_at"]
    list_select_related = ["user"]
    search_fields = ["user__username"]  # Django shows the field; get_search_results searches.
    search_help_text = _("A username or an email address of a user, or a part of one")
    ordering = ["-created_at", "-id"]
    fields = ["kind", "whose", "to", "state_tag", "attempts", "created_at", "due_at"]
    fields += ["sent_at", "failed_at", "reply"]
    actions = ["retry"]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in FILTERS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[OutgoingEmail], search_term: str
    ) -> tuple[QuerySet[OutgoingEmail], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        users = User.objects.filter(Q(username__icontains=term) | Q(email__icontains=term))
        return queryset.filter(user__in=users.values("pk")), False

    @admin.display(description=_("user"))
    def whose(self, email: OutgoingEmail) -> str:
        return link("user_change", email.user, email.user_id) if email.user else ""

    @admin.display(description=_("to"))
    def to(self, email: OutgoingEmail) -> str:
        return "an entered identity" if email.is_to_stranger else email.address

    @admin.display(description=_("state"))
    def state_tag(self, email: OutgoingEmail) -> str:
        return state_tag(email)

    @admin.display(description=_("error"))
    def reply(self, email: OutgoingEmail) -> str:
        """Return the error; of an entered address its first word, since a server repeats it."""
        return email.error.partition(" ")[0] if email.is_to_stranger else email.error

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_outgoingemail")

    @admin.action(description=_("Send the selected emails again"), permissions=["retry"])
    def retry(self, request: HttpRequest, emails: QuerySet[OutgoingEmail]) -> None:
        """Make late and failed emails due now; others are due, or have been sent."""
        with transaction.atomic():
            stuck = emails.filter(~Q(error="") | Q(failed_at__isnull=False), sent_at=None)
            rows = stuck.select_for_update(of=("self",)).select_related("user").order_by("pk")
            permitted = [email for email in rows if can_manage(request, email.user)]
            number = OutgoingEmail.objects.filter(pk__in=[row.pk for row in permitted]).retry()
            for email in permitted:
                Event.objects.record(Event.Kind.MAIL_REQUESTED, email.user, detail=email.kind)
        level = messages.SUCCESS if number else messages.WARNING
        self.message_user(request, f"{count(number, 'email')} due now.", level)

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin.pages import RecordAdmin, count, link, moment, tag
from accounts.models import ApiToken, ApiTokenQuerySet, Session, User

CREATED: Any = moment("created_at", "created")


def may_end(request: HttpRequest) -> bool:
    return request.user.has_perm("accounts.end_apitoken")


def end_tokens(request: HttpRequest, tokens: ApiTokenQuerySet) -> None:
    ended = tokens.end(Session.Reason.STAFF)
    if ended:
        messages.success(request, f"{count(ended, 'API token')} ended.")
    else:
        messages.warning(request, _("No API token was active any more."))


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "active"), ("expired", "expired")]

    def queryset(self, request: HttpRequest, tokens: Any) -> Any:
        selections = {"active": tokens.active(), "expired": tokens.filter(expires_at__lte=Now())}
        return selections.get(self.value() or "", tokens)


@admin.register(ApiToken)
class ApiTokenAdmin(RecordAdmin):
    list_display = ["name", "of", "scope", "state_tag", CREATED]
    list_display += [moment("last_used_at", "last used"), moment("expires_at", "expires")]
    sortable_by = [CREATED]
    list_filter = [StateFilter, "scope", "created_at"]
    list_select_related = ["user"]
    search_fields = ["user__username"]  # Django shows the field; get_search_results searches.
    search_help_text = _("A user name or an e-mail address, or a part of one; or the id of a token")
    ordering = ["-created_at", "-id"]
    fields = ["id", "name", "of", "scope", "created_at", "last_used_at", "expires_at", "state_tag"]
    actions = ["end"]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "user__id__exact" or super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ApiToken], search_term: str
    ) -> tuple[QuerySet[ApiToken], bool]:
        """Look for the id of a token, which is a part of a leaked one, or for the users."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if (found := queryset.filter(pk=term)).exists():
            return found, False
        users = User.objects.filter(Q(username__icontains=term) | Q(email__icontains=term))
        return queryset.filter(user__in=users.values("pk")), False

    @admin.display(description=_("user"))
    def of(self, token: ApiToken) -> str:
        return link("user_change", token.user, token.user_id)

    @admin.display(description=_("state"))
    def state_tag(self, token: ApiToken) -> str:
        return tag("active", "good") if token.is_active else tag("expired", "none")

    def has_end_permission(self, request: HttpRequest) -> bool:
        return may_end(request)

    @admin.action(description=_("End selected API tokens"), permissions=["end"])
    def end(self, request: HttpRequest, tokens: ApiTokenQuerySet) -> None:
        end_tokens(request, tokens)

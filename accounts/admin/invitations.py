from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminEmailInputWidget
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from accounts.admin.pages import RecordAdmin, count, moment, tag
from accounts.identities import LONGEST_EMAIL
from accounts.models import Invitation
from accounts.models.invitations import DISABLED

SENT: Any = moment("created_at", "sent")
MEANINGS = {"pending": "note", "accepted": "good"}


class InvitationForm(forms.Form):
    email = forms.EmailField(
        label=_("Email address"), max_length=LONGEST_EMAIL, widget=AdminEmailInputWidget
    )

    def send(self) -> Invitation | None:
        """Send the invitation, or add to the form why that is not possible."""
        if self.is_valid():
            try:
                return Invitation.objects.send(self.cleaned_data["email"])
            except ValidationError as error:
                self.add_error("email", error)
        return None


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("pending", "pending"), ("accepted", "accepted"), ("ended", "expired or ended")]

    def queryset(self, request: HttpRequest, invitations: Any) -> Any:
        if self.value() == "pending":
            return invitations.open()
        if self.value() == "accepted":
            return invitations.filter(used_at__isnull=False)
        if self.value() == "ended":
            return invitations.filter(used_at=None, expires_at__lte=Now())
        return invitations


@admin.register(Invitation)
class InvitationAdmin(RecordAdmin):
    """Invitations, until a day after their end. Who may add users sends and withdraws them."""

    list_display = ["address", "state_tag", "by", SENT, moment("expires_at", "expires")]
    list_display_links = None
    list_filter = [StateFilter]
    search_fields = ["address"]
    search_help_text = _("A part of the email address")
    ordering = ["-created_at", "-id"]
    sortable_by = [SENT]
    fields = ["address", "state_tag", "by", "created_at", "expires_at", "used_at"]
    actions = ["withdraw"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.add_user")

    def has_view_permission(self, request: HttpRequest, obj: Invitation | None = None) -> bool:
        return self.has_add_permission(request)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request)

    @admin.display(description=_("state"))
    def state_tag(self, invitation: Invitation) -> SafeString:
        return tag(invitation.state, MEANINGS.get(invitation.state, "none"))

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = InvitationForm(request.POST or None)
        if invitation := form.send():
            text = _("An invitation to {address} is queued.").format(address=invitation.address)
            messages.success(request, text)
            return redirect("admin:accounts_invitation_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": _("Invite a user"),
            "opts": self.opts,
            "form": form,
            "fault": None if settings.EMAIL_ENABLED else DISABLED,
        }
        return TemplateResponse(request, "admin/accounts/invite.html", context)

    @admin.action(description=_("Withdraw the selected invitations"), permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, invitations: QuerySet[Invitation]) -> None:
        number = sum(invitation.withdraw() for invitation in invitations.order_by("pk"))
        level = messages.SUCCESS if number else messages.WARNING
        self.message_user(request, f"{count(number, 'invitation')} withdrawn.", level)

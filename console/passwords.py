"""The console's password pages, for staff who are signed in and for staff who must change it."""

from typing import Any

from django.contrib import messages
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth import authenticate, update_session_auth_hash
from django.contrib.auth.forms import SetPasswordForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.failures import clear_login_failures
from accounts.models import (
    PasswordUnchangedError,
    SecondFactorRequiredError,
    StaleLoginError,
    Ticket,
    TicketError,
)
from console import tickets
from console.access import proof_of
from console.pages import FormPage, TargetMixin


def password_unchanged() -> ValidationError:
    message = _("The new password must differ from the current one.")
    return ValidationError(message, code="password_unchanged")


class PasswordForm(AdminPasswordChangeForm):
    """
    Change the password of the signed-in staff member.

    The new password is validated before the old one is verified, as in the API.
    """

    def __init__(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(request.user, *args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        """Return the password unverified; `clean` verifies and counts it, which Django does not."""
        return str(self.cleaned_data["old_password"])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("old_password") == cleaned.get("new_password1"):
            self.add_error("new_password1", password_unchanged())
        if not self.errors:
            self.verify(cleaned["old_password"])
        return cleaned

    def verify(self, password: str) -> None:
        identity = self.user.get_username()
        user = authenticate(self.request, username=identity, password=password, staff_only=True)
        if user is None:
            message = self.error_messages["password_incorrect"]
            self.add_error("old_password", ValidationError(message, code="password_incorrect"))
        else:
            self.user = user

    def save(self, commit: bool = True) -> Any:
        """Raises StaleLoginError and SecondFactorRequiredError if the account has changed since."""
        current, new = self.cleaned_data["old_password"], self.cleaned_data["new_password1"]
        proof = proof_of(self.request)
        self.user.change_password(new, session=None, current=current, proof=proof)
        return self.user


class ForcedPasswordForm(SetPasswordForm):
    """Replace a password that must be changed, with the ticket of a sign-in that was proven."""

    def __init__(self, ticket: Ticket, *args: Any, **kwargs: Any) -> None:
        super().__init__(ticket.user, *args, **kwargs)
        self.ticket = ticket

    def save(self, commit: bool = True) -> Any:
        """Raises TicketError where the ticket has ended meanwhile, and PasswordUnchangedError."""
        self.user.reset_password(self.ticket, self.cleaned_data["new_password1"])
        clear_login_failures(self.user)
        return self.user


class PasswordView(FormPage):
    title = gettext_lazy("Password change")
    form_class = PasswordForm
    template_name = "admin/password_change.html"
    success_url = reverse_lazy("admin:password_change_done")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            user = form.save()
        except (StaleLoginError, SecondFactorRequiredError):
            form.add_error("old_password", _("The account was changed meanwhile. Try again."))
            return self.form_invalid(form)
        # The new password ends all other sessions.
        update_session_auth_hash(self.request, user)
        return super().form_valid(form)


class ForcedPasswordView(TargetMixin, FormPage):
    title = gettext_lazy("Password change")
    form_class = ForcedPasswordForm
    template_name = "admin/password_change.html"
    ticket: Ticket

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        ticket = tickets.find(request, Ticket.Purpose.FORCE)
        if ticket is None:
            return redirect(self.with_target("login"))
        self.ticket = ticket
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "ticket": self.ticket}

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            form.save()
        except TicketError:
            return redirect(self.with_target("login"))
        except PasswordUnchangedError:
            form.add_error("new_password1", password_unchanged())
            return self.form_invalid(form)
        messages.success(self.request, _("Your password was changed. Sign in with the new one."))
        return redirect(self.with_target("login"))

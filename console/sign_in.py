"""
The console's sign-in: the password, then the second factor of a user who has one.

Nobody is signed in between the two: the session of the browser has nothing but a ticket.
"""

import contextlib
import json
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import authenticate, login
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.failures import count_completion, counting
from accounts.models import (
    Event,
    PasskeyProof,
    PasswordChangeRequiredError,
    Proof,
    SecondFactorRequiredError,
    StaleLoginError,
    Ticket,
    TicketError,
    User,
    WrongCodeError,
    WrongPasskeyError,
    mfa_tickets,
)
from accounts.models.access import granting_access
from accounts.models.codes import Code
from accounts.models.passkeys import second_factor_options
from accounts.models.proofs import PASSWORD
from accounts.models.recovery_codes import LONGEST_CODE
from accounts.webauthn import LONGEST_CREDENTIAL
from console import access, tickets
from console.pages import FormPage, TargetMixin


def identity_field() -> forms.CharField:
    """
    Return a field for a username or an e-mail address, without normalisation.

    Django's field has the length of a username and applies NFKC, so an address that is not
    registered could sign in.
    """
    widget = forms.TextInput(attrs={"autofocus": True})
    return forms.CharField(label="Username", max_length=254, widget=widget)


class SignInForm(AdminAuthenticationForm):
    """Verify the password of staff; reject others as if the password were incorrect."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"] = identity_field()

    def clean(self) -> dict[str, Any]:
        identity, password = map(self.cleaned_data.get, ("username", "password"))
        if identity and password:
            self.user_cache = authenticate(
                self.request, username=identity, password=password, staff_only=True
            )
            if self.user_cache is None:
                raise self.get_invalid_login_error()
        return self.cleaned_data


class CodeField(forms.CharField):
    """A code of an authenticator app, or a recovery code."""

    def __init__(self, **options: Any) -> None:
        attrs = {"autocomplete": "one-time-code", "autofocus": True, "spellcheck": "false"}
        widget = forms.TextInput(attrs=attrs)
        super().__init__(label=_("Code"), max_length=LONGEST_CODE, widget=widget, **options)


class CredentialField(forms.CharField):
    """What a script sends of a passkey, as JSON."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=LONGEST_CREDENTIAL, widget=forms.HiddenInput, **options)


def read_json(text: str) -> Any:
    """Return the value of a JSON text; None for any other text, which is no credential either."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


class SecondFactorForm(forms.Form):
    code = CodeField(required=False)
    credential = CredentialField(required=False)

    def clean(self) -> dict[str, Any]:
        code, credential = map(self.cleaned_data.get, ("code", "credential"))
        if bool(code) == bool(credential) and not self.errors:
            self.add_error("code", ValidationError(_("Enter a code."), code="required"))
        return self.cleaned_data

    def proof_with(self, ticket: Ticket) -> Proof:
        """Return what was sent as a proof that uses up the ticket, too."""
        if code := self.cleaned_data["code"]:
            return Code(code=code, ticket=ticket)
        return PasskeyProof(data=read_json(self.cleaned_data["credential"]), ticket=ticket)


def start_session(request: HttpRequest, user: User, proof: Proof) -> None:
    """
    Sign staff in, in a session with a new key.

    Raises the errors of `Session.objects.start`. The user's row is locked while the proof is used.
    """
    with granting_access(user):
        with transaction.atomic():
            verified, used = user.prove(proof)
        if not verified.is_staff:
            raise StaleLoginError
        if verified.must_change_password:
            raise PasswordChangeRequiredError
    login(request, verified)
    request.session.pop(Ticket.Purpose.MFA, None)
    access.remember(request, used)
    detail = ", ".join(["console", *used.methods])
    Event.objects.record(Event.Kind.SIGNED_IN, verified, detail=detail)


class SignInMixin(TargetMixin):
    """A page that signs staff in, or leads to the next step of the sign-in."""

    template_name: Any = "console/sign_in.html"

    def sign_in(self, user: User, proof: Proof) -> HttpResponse:
        """Raises StaleLoginError, WrongCodeError, WrongPasskeyError and TicketError."""
        try:
            user.check_proof(proof)
            start_session(self.request, user, proof)
        except SecondFactorRequiredError:
            return self.lead_to("second_factor", mfa_tickets.issue(user, user.failures.source))
        except PasswordChangeRequiredError:
            ticket = Ticket.objects.issue(Ticket.Purpose.FORCE, user)
            return self.lead_to("forced_password", ticket)
        return redirect(self.get_success_url())

    def lead_to(self, page: str, ticket: Ticket) -> HttpResponse:
        tickets.keep(self.request, ticket)
        return redirect(self.with_target(page))


class SignInView(SignInMixin, FormPage, LoginView):
    title = gettext_lazy("Log in")
    authentication_form = SignInForm

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Lead staff who are signed in to the first page, unless they have to sign in again."""
        is_enough = access.is_fresh(request) or self.redirect_field_name not in request.GET
        if admin.site.has_permission(request) and is_enough:
            return redirect(self.next_page)
        return super().get(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            return self.sign_in(form.get_user(), PASSWORD)
        except (StaleLoginError, TicketError):  # The account was changed meanwhile.
            form.add_error(None, form.get_invalid_login_error())
            return self.form_invalid(form)


class SecondFactorView(SignInMixin, FormPage):
    title = gettext_lazy("Second factor")
    form_class = SecondFactorForm
    ticket: Ticket

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        ticket = tickets.find(request, Ticket.Purpose.MFA)
        if ticket is None:
            return self.begin_again()
        self.ticket = ticket
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user: Any = self.ticket.user
        return {
            **super().get_context_data(**kwargs),
            "offers_passkey": settings.WEBAUTHN_RP_ID and user.passkeys.exists(),
            self.redirect_field_name: self.get_redirect_url(),
        }

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            return self.complete(form)
        except (StaleLoginError, TicketError):
            return self.begin_again()
        except WrongCodeError:
            form.add_error("code", _("This code is wrong, or was used before."))
        except WrongPasskeyError:
            form.add_error(None, _("This passkey could not be verified."))
        return self.form_invalid(form)

    def complete(self, form: Any) -> HttpResponse:
        ticket = mfa_tickets.try_once(self.ticket.token)
        user = count_completion(ticket, self.request.META["REMOTE_ADDR"])
        proof = form.proof_with(ticket)
        with counting(user, proof):
            return self.sign_in(user, proof)

    def begin_again(self) -> HttpResponse:
        if self.request.method == "POST":
            text = _("The sign-in has expired, or had too many tries. Sign in again.")
            messages.error(self.request, text)
        return redirect(self.with_target("login"))


class PasskeyOptionsView(SecondFactorView):
    """What a browser needs to use a passkey of the user who signs in."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user: Any = self.ticket.user
        return JsonResponse(second_factor_options(user))

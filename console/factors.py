"""
The pages on which staff add and remove their own second factors.

They are open to staff who signed in lately: with the second factor, if there is one.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import segno
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts.encryption import decrypt
from accounts.failures import counting_enrolment
from accounts.models import (
    EmailNotVerifiedError,
    Passkey,
    PasskeyLimitError,
    Proof,
    StaleLoginError,
    TicketError,
    WrongCodeError,
)
from accounts.models.passkeys import MAXIMUM
from accounts.models.proofs import MFA
from accounts.models.totp import uri_of
from accounts.webauthn import CredentialError
from console import access
from console.pages import rate_limit_response, sign_in_again
from console.sign_in import CodeField, CredentialField, read_json

View = Callable[..., HttpResponse]
MEANWHILE = (StaleLoginError, EmailNotVerifiedError, TicketError)


class CodeForm(forms.Form):
    code = CodeField()


class PasskeyForm(forms.ModelForm):
    credential = CredentialField()

    class Meta:
        model = Passkey
        fields = ("name",)


def own_factors(view: View) -> View:
    """Guard a page: only staff who have just signed in, and only if nothing changes meanwhile."""

    @never_cache
    @wraps(view)
    def inner(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        may_enter = admin.site.has_permission(request) or access.must_enrol(request)
        if not (may_enter and access.is_fresh(request)):
            return sign_in_again(request)
        user: Any = request.user
        user.proof = access.proof_of(request)
        try:
            return rate_limit_response(request) or view(request, **kwargs)
        except MEANWHILE:
            return sign_in_again(request)

    return inner


def page(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    context |= {**admin.site.each_context(request), "title": title}
    context["must_enrol"] = access.must_enrol(request)
    return TemplateResponse(request, f"console/{template}.html", context)


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    passkeys = list(user.passkeys.order_by("created_at", "pk"))
    return page(
        request,
        "factors",
        _("Second factors"),
        app=user.totp_devices.confirmed().first(),
        passkeys=passkeys,
        codes_left=user.recovery_codes_left,
        offers_passkeys=settings.WEBAUTHN_RP_ID and len(passkeys) < MAXIMUM,
    )


@require_POST
def begin_app(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    user.begin_totp(session=None)
    return redirect("admin:factors_app")


def confirm_app(request: HttpRequest) -> HttpResponse:
    """Show the secret of an authenticator app until a code of it is entered."""
    user: Any = request.user
    device = user.totp_devices.pending().first()
    if device is None:
        return redirect("admin:factors")
    form = CodeForm(request.POST or None)
    if form.is_valid():
        try:
            with counting_enrolment(user, request.META["REMOTE_ADDR"]):
                codes = user.confirm_totp(form.cleaned_data["code"], session=None)
        except WrongCodeError:
            form.add_error("code", ValidationError(_("This code is wrong."), code="wrong_code"))
        else:
            return added(request, codes, "pwd", "otp", MFA)
    secret = decrypt(device.secret)
    return page(
        request,
        "factors_app",
        _("Add an authenticator app"),
        form=form,
        qr_code=qr_code(uri_of(secret, user)),
        secret=" ".join(re.findall("....", secret)),
    )


def qr_code(text: str) -> str:
    """Draw a QR code as SVG without styles and scripts, which the policy of the page forbids."""
    drawn = segno.make(text, error="m").svg_inline(
        border=4, light="#fff", omitsize=True, svgclass="qr", lineclass=None
    )
    return mark_safe(drawn)  # noqa: S308 - segno draws paths; the text is not in them


@require_POST
def remove_app(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    return removed(request, user.remove_totp(session=None))


@require_POST
def replace_codes(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    codes = user.replace_recovery_codes(session=None)
    return show_codes(request, codes) if codes else redirect("admin:factors")


@require_POST
def begin_passkey(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    try:
        return JsonResponse(Passkey.objects.begin_registration(user))
    except PasskeyLimitError:
        return HttpResponse(status=409)


@require_POST
def add_passkey(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    form = PasskeyForm(request.POST)
    if form.is_valid():
        given = form.cleaned_data
        try:
            credential = read_json(given["credential"])
            passkey = Passkey.objects.register(user, credential, given["name"], session=None)
        except (CredentialError, PasskeyLimitError):
            pass
        else:
            return added(request, passkey.recovery_codes, "pwd", "pop", "user", MFA)
    messages.error(request, _("The passkey was not added. Try again."))
    return redirect("admin:factors")


@require_POST
def remove_passkey(request: HttpRequest, pk: Any) -> HttpResponse:
    user: Any = request.user
    return removed(request, Passkey.objects.remove(user, pk, session=None))


def added(request: HttpRequest, codes: list[str] | None, *methods: str) -> HttpResponse:
    """Go on in this session, which has proven the factor that was added."""
    if not access.proof_of(request).has_second_factor:
        access.renew(request, Proof(methods, timezone.now()))
    if codes:
        return show_codes(request, codes)
    messages.success(request, _("The second factor was added."))
    return redirect("admin:factors")


def removed(request: HttpRequest, was_there: bool) -> HttpResponse:
    if was_there:
        messages.success(request, _("The second factor was removed."))
    return redirect("admin:factors")


def show_codes(request: HttpRequest, codes: list[str]) -> HttpResponse:
    return page(request, "recovery_codes", _("Recovery codes"), codes=codes)


def own(route: str, view: View, name: str) -> Any:
    return path(f"factors/{route}", own_factors(view), name=name)


urls = [
    own("", overview, "factors"),
    own("app/", confirm_app, "factors_app"),
    own("app/begin/", begin_app, "factors_begin_app"),
    own("app/remove/", remove_app, "factors_remove_app"),
    own("recovery-codes/", replace_codes, "factors_replace_codes"),
    own("passkeys/", add_passkey, "factors_add_passkey"),
    own("passkeys/begin/", begin_passkey, "factors_begin_passkey"),
    own("passkeys/<uuid:pk>/remove/", remove_passkey, "factors_remove_passkey"),
]

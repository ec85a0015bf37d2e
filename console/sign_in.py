"""The console's sign-in and password forms, which verify passwords as the API's login does."""

from typing import Any

from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth import authenticate, update_session_auth_hash
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView

from accounts.models import Event, SecondFactorRequiredError, StaleLoginError
from accounts.models.proofs import MFA, PASSWORD, Proof

SIGNED_IN = Proof(("pwd", MFA))  # The sign-in has proven the factor, if there is one.
MUST_CHANGE = 'Your password must be changed before you sign in. <a href="{}">Change it now</a>.'


def identity_field() -> forms.CharField:
    """
    Return a field for a username or an e-mail address, without normalisation.

    Django's field has the length of a username and applies NFKC, so an address that is not
    registered could sign in.
    """
    widget = forms.TextInput(attrs={"autofocus": True})
    return forms.CharField(label="Username", max_length=254, widget=widget)


class SignInForm(AdminAuthenticationForm):
    """Sign in staff; reject others as if the password were incorrect."""

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
            self.confirm_login_allowed(self.user_cache)
        return self.cleaned_data

    def confirm_login_allowed(self, user: Any) -> None:
        super().confirm_login_allowed(user)
        if user.must_change_password:
            Event.objects.record_rejection(user, "password change required")
            text = format_html(MUST_CHANGE, reverse("admin:password_change"))
            raise ValidationError(text, code="password_change_required")


class PasswordForm(AdminPasswordChangeForm):
    """
    Change the password of the signed-in staff member, or of the one that the form names.

    The new password is validated before the old one is verified, as in the API. The errors of the
    new password must not disclose whether the old one is correct.
    """

    field_order = ["username", "old_password", "new_password1", "new_password2"]

    def __init__(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(request.user, *args, **kwargs)
        self.request = request
        if request.user.is_anonymous:
            self.fields["username"] = identity_field()
            self.order_fields(self.field_order)

    def clean_old_password(self) -> str:
        """Return the password unverified; `clean` verifies and counts it, which Django does not."""
        return str(self.cleaned_data["old_password"])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("old_password") == cleaned.get("new_password1"):
            message = _("The new password must differ from the current one.")
            self.add_error("new_password1", ValidationError(message, code="password_unchanged"))
        if not self.errors:
            self.verify(cleaned.get("username") or self.user.get_username())
        return cleaned

    def verify(self, identity: str) -> None:
        user = authenticate(
            self.request,
            username=identity,
            password=self.cleaned_data["old_password"],
            staff_only=True,
        )
        if user is None:
            message = self.error_messages["password_incorrect"]
            self.add_error("old_password", ValidationError(message, code="password_incorrect"))
            return
        self.user = user
        self.validate_password_for_user(user, "new_password2")
        if self.errors:  # The current password was right, and that is always recorded.
            Event.objects.record_rejection(user, "new password rejected")

    def save(self, commit: bool = True) -> Any:
        """
        Set the new password.

        Raises StaleLoginError if the account has changed since, and SecondFactorRequiredError if it
        has a second factor and nobody is signed in.
        """
        current, new = self.cleaned_data["old_password"], self.cleaned_data["new_password1"]
        proof = PASSWORD if self.request.user.is_anonymous else SIGNED_IN
        self.user.change_password(new, session=None, current=current, proof=proof)
        return self.user


@method_decorator([never_cache, sensitive_post_parameters()], name="dispatch")
class PasswordView(FormView):
    form_class = PasswordForm
    template_name = "admin/password_change.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            user = form.save()
        except SecondFactorRequiredError:
            text = _("This account has a second factor. Sign in with it, then change the password.")
            form.add_error("old_password", text)
            return self.form_invalid(form)
        except StaleLoginError:
            form.add_error("old_password", _("The account was changed meanwhile. Try again."))
            return self.form_invalid(form)
        if self.request.user == user:
            # The new password ends all other sessions.
            update_session_auth_hash(self.request, user)
        return super().form_valid(form)

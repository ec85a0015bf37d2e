"""Second factors on a user's page, and the reset of those that a user has lost."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.admin import changes
from accounts.admin.changes import can_manage
from accounts.admin.pages import tag
from accounts.models import User


class FactorActions(admin.ModelAdmin):
    """What staff see of second factors, and do about them."""

    @admin.display(description=_("second factor"))
    def second_factor(self, user: User) -> str:
        if user.factor_reset_at:
            return tag("reset pending", "bad")
        return tag("yes", "good") if user.has_second_factor else ""

    def has_reset_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return request.user.has_perm("accounts.reset_factors") and can_manage(request, obj)

    @admin.action(description=_("Begin a reset of the second factors"), permissions=["reset"])
    def begin_factor_reset(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.begin_factor_reset)

    @admin.action(description=_("Cancel the reset of the second factors"), permissions=["reset"])
    def cancel_factor_reset(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.cancel_factor_reset)

    def factors_of(self, request: HttpRequest, user: User) -> dict[str, Any]:
        """Return what the page of a user shows: no secret, and no code."""
        return {
            "app": user.totp_devices.confirmed().first(),
            "passkeys": user.passkeys.order_by("created_at", "pk"),
            "recovery_codes_left": user.recovery_codes_left,
            "may_reset": self.has_reset_permission(request, user),
        }

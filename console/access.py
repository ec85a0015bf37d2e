"""What a console session has proven at its sign-in, and what staff must prove."""

import time
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest

from accounts.models import Proof
from accounts.models.proofs import PASSWORD

KEY = "proof"


def remember(request: HttpRequest, proof: Proof) -> None:
    """Record what was just proven in the session, which nobody but the service writes."""
    added_at = proof.factor_added_at
    request.session[KEY] = {
        "methods": proof.methods,
        "factor_added_at": added_at and added_at.isoformat(),
        "at": time.time(),
    }


def proof_of(request: HttpRequest) -> Proof:
    """Return what the session has proven; a password alone if it was not recorded."""
    proven = request.session.get(KEY)
    if proven is None:
        return PASSWORD
    added_at = proven["factor_added_at"]
    return Proof(tuple(proven["methods"]), added_at and datetime.fromisoformat(added_at))


def has_access(request: HttpRequest) -> bool:
    """Tell whether the session of staff has proven the factor that the user has, or must have."""
    user: Any = request.user
    if user.has_second_factor:
        return proof_of(request).has_second_factor
    return bool(settings.STAFF_MFA == "optional")


def must_enrol(request: HttpRequest) -> bool:
    """Tell whether staff are signed in who must add a second factor before anything else."""
    user: Any = request.user
    is_staff = user.is_active and user.is_staff
    return is_staff and not user.has_second_factor and settings.STAFF_MFA == "required"


def is_fresh(request: HttpRequest) -> bool:
    """Tell whether the sign-in is recent enough to change how the user signs in."""
    proven_at = request.session.get(KEY, {}).get("at", 0)
    return bool(0 <= time.time() - proven_at < settings.FRESH_LIFETIME.total_seconds())


def renew(request: HttpRequest, proof: Proof) -> None:
    """Go on in a session that has proven more, after a change that ended the user's others."""
    user: Any = request.user
    update_session_auth_hash(request, user)
    remember(request, proof)

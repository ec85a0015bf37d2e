"""How a view signs a user in."""

from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.devices import device_name
from accounts.models import (
    PasswordChangeRequiredError,
    Proof,
    SecondFactorRequiredError,
    Session,
    StaleLoginError,
    User,
    WrongPasskeyError,
)
from accounts.rejections import PasswordChangeRequired, SecondFactorRequired, require_factor


def start_session(request: Request, user: User, proof: Proof) -> Session:
    """Start the session of a login; the request is the session's from here on."""
    user_agent = request.headers.get("User-Agent", "")[:512]
    require_factor(user, proof)
    try:
        session = Session.objects.start(
            user,
            address=request.META["REMOTE_ADDR"],
            user_agent=user_agent,
            device=device_name(user_agent),
            proof=proof,
        )
    except (StaleLoginError, WrongPasskeyError) as error:
        raise AuthenticationFailed(code="invalid_credentials") from error
    except SecondFactorRequiredError as error:  # Added since the password was verified.
        raise SecondFactorRequired(user) from error
    except PasswordChangeRequiredError as error:
        raise PasswordChangeRequired(user) from error
    request.auth = session  # For its log line too.
    return session

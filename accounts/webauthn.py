"""
WebAuthn (Level 3): the options that browsers get, and what their credentials prove.

The only module that imports the library `webauthn`, inside functions: it costs 234 modules, which a
worker that never sees a passkey must not load. The library raises whatever Python raises on junk
(AttributeError on a list); here every failure is one error, CredentialError.
"""

import base64
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

LONGEST_CREDENTIAL = 8 * 1024  # bytes of JSON
LONGEST_ID = 1023  # bytes, by the specification
TIMEOUT = 300_000  # milliseconds: the lifetime of a challenge
ALGORITHMS = (-7, -8, -257)  # ES256, EdDSA and RS256 (RFC 9053)
TRANSPORTS = ("ble", "hybrid", "internal", "nfc", "smart-card", "usb")

# Authenticator data: the hash of the relying party's id, the flags, a counter of 32 bits.
FLAGS, HEADER_LENGTH, AAGUID_LENGTH = 32, 37, 16
BACKUP_ELIGIBLE, ATTESTED_DATA, EXTENSIONS = 0x08, 0x40, 0x80
# CBOR (RFC 8949): the bytes of a head's argument by its low five bits, and the major types.
ARGUMENT_LENGTHS = {24: 1, 25: 2, 26: 4, 27: 8}
BYTES, TEXT, ARRAY, MAP, TAG = 2, 3, 4, 5, 6


class CredentialError(Exception):
    """The credential is malformed or proves nothing; the error does not say why."""


@dataclass(frozen=True)
class Credential:
    """What a client presents: who it claims to be, and the challenge. Nothing of it is verified."""

    data: dict[str, Any]
    credential_id: bytes
    challenge: str
    user_handle: uuid.UUID | None


@dataclass(frozen=True)
class Registered:
    """A new passkey. `synced`: it may be backed up, so several devices may have it."""

    credential_id: bytes
    public_key: bytes  # COSE_Key
    sign_count: int
    synced: bool
    transports: list[str]


@dataclass(frozen=True)
class Asserted:
    """A use of a passkey by a user whom the authenticator verified."""

    sign_count: int
    synced: bool


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Decode base64url without padding; raises ValueError for any other form of the same bytes."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise ValueError("base64url")
    return data


def descriptors(passkeys: Iterable[tuple[bytes, list[str]]]) -> list[dict[str, Any]]:
    """Describe passkeys, by credential id and transports, for a browser."""
    return [
        {"type": "public-key", "id": encode(credential_id), "transports": transports}
        for credential_id, transports in passkeys
    ]


def request_options(
    challenge: str, passkeys: Iterable[tuple[bytes, list[str]]] = ()
) -> dict[str, Any]:
    """Return PublicKeyCredentialRequestOptionsJSON; without passkeys the browser offers its own."""
    options = {
        "challenge": challenge,
        "timeout": TIMEOUT,
        "rpId": settings.WEBAUTHN_RP_ID,
        "userVerification": "required",
    }
    allowed = descriptors(passkeys)
    return options | ({"allowCredentials": allowed} if allowed else {})


def creation_options(
    challenge: str,
    *,
    handle: uuid.UUID,
    name: str,
    display_name: str,
    passkeys: Iterable[tuple[bytes, list[str]]],
) -> dict[str, Any]:
    """Return PublicKeyCredentialCreationOptionsJSON for a user who has these passkeys."""
    return {
        "rp": {"id": settings.WEBAUTHN_RP_ID, "name": settings.PROJECT_NAME},
        "user": {"id": encode(handle.bytes), "name": name, "displayName": display_name},
        "challenge": challenge,
        "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in ALGORITHMS],
        "timeout": TIMEOUT,
        "excludeCredentials": descriptors(passkeys),
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "required",
        },
        "attestation": "none",
    }


def read(data: object) -> Credential:
    """
    Read what a credential claims, in Python alone.

    Raises CredentialError for anything that is no credential of at most LONGEST_CREDENTIAL.
    """
    if not isinstance(data, dict):
        raise CredentialError
    try:
        if len(json.dumps(data)) > LONGEST_CREDENTIAL:
            raise CredentialError
        response = data["response"]
        client_data = json.loads(decode(response["clientDataJSON"]))
        handle = response.get("userHandle")
        # A page of a foreign origin shows ours in a frame; this service expects no such use.
        if client_data.get("crossOrigin") or not isinstance(client_data["challenge"], str):
            raise CredentialError
        return Credential(
            data=data,
            credential_id=decode(data["id"]),
            challenge=client_data["challenge"],
            user_handle=uuid.UUID(bytes=decode(handle)) if handle is not None else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CredentialError from error


def verify_registration(credential: Credential) -> Registered:
    """
    Return the passkey that a credential creates.

    Raises CredentialError unless a page of WEBAUTHN_ORIGINS created it for the challenge and
    WEBAUTHN_RP_ID, with one of ALGORITHMS, and the authenticator verified its user.
    """
    import webauthn
    from webauthn import helpers

    response = credential.data["response"]
    try:
        attestation = decode(response["attestationObject"])
        check_cbor(attestation)
        data = helpers.parse_cbor(attestation)["authData"]
        check_authenticator_data(data)
        verified = webauthn.verify_registration_response(
            credential=credential.data,
            supported_pub_key_algs=[helpers.cose.COSEAlgorithmIdentifier(n) for n in ALGORITHMS],
            **expectations(credential),
        )
        key = helpers.decode_credential_public_key(verified.credential_public_key)
        helpers.decoded_public_key_to_cryptography(key)  # The library does so at the first use.
    except Exception as error:
        raise CredentialError from error
    # The id that the authenticator attests must be the one that the browser names.
    credential_id = verified.credential_id
    if credential_id != credential.credential_id or len(credential_id) > LONGEST_ID:
        raise CredentialError
    given = response.get("transports")
    return Registered(
        credential_id=credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        synced=bool(data[FLAGS] & BACKUP_ELIGIBLE),
        transports=[name for name in TRANSPORTS if isinstance(given, list) and name in given],
    )


def verify_assertion(credential: Credential, public_key: bytes) -> Asserted:
    """
    Return what the use of a passkey with this public key proves; the caller checks the counter.

    Raises CredentialError unless a page of WEBAUTHN_ORIGINS requested it for the challenge and
    WEBAUTHN_RP_ID, and the authenticator verified its user.
    """
    import webauthn

    try:
        data = decode(credential.data["response"]["authenticatorData"])
        check_authenticator_data(data)
        verified = webauthn.verify_authentication_response(
            credential=credential.data,
            credential_public_key=public_key,
            credential_current_sign_count=0,
            **expectations(credential),
        )
    except Exception as error:
        raise CredentialError from error
    return Asserted(verified.new_sign_count, bool(data[FLAGS] & BACKUP_ELIGIBLE))


def expectations(credential: Credential) -> dict[str, Any]:
    return {
        "expected_challenge": decode(credential.challenge),
        "expected_rp_id": settings.WEBAUTHN_RP_ID,
        "expected_origin": list(settings.WEBAUTHN_ORIGINS),
        "require_user_verification": True,
    }


def check_authenticator_data(data: bytes) -> None:
    """
    Raise CredentialError or IndexError for data with unusual CBOR, before the library reads it.

    The library encodes again what it has decoded. References that share values (RFC 8949, tag 28)
    would let 200 bytes grow without bound, before any signature is verified.
    """
    end = HEADER_LENGTH
    if data[FLAGS] & ATTESTED_DATA:
        end += AAGUID_LENGTH
        end += 2 + int.from_bytes(data[end : end + 2], "big")
        end = end_of_cbor(data, end)
    if data[FLAGS] & EXTENSIONS:
        end = end_of_cbor(data, end)
    if end != len(data):
        raise CredentialError


def check_cbor(data: bytes) -> None:
    if end_of_cbor(data, 0) != len(data):
        raise CredentialError


def end_of_cbor(data: bytes, start: int) -> int:
    """
    Return where an item of CTAP2's canonical CBOR ends, which has no tags and no open lengths.

    Raises CredentialError, or IndexError where the data ends before the item.
    """
    at, pending = start, 1
    while pending:
        major, low = divmod(data[at], 32)
        if major == TAG or low > max(ARGUMENT_LENGTHS):
            raise CredentialError
        length = ARGUMENT_LENGTHS.get(low, 0)
        argument = int.from_bytes(data[at + 1 : at + 1 + length], "big") if length else low
        at += 1 + length + (argument if major in {BYTES, TEXT} else 0)
        pending += {ARRAY: argument, MAP: 2 * argument}.get(major, 0) - 1
    return at

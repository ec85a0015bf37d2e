"""What a credential proves: authenticators of several kinds, and everything that is bent."""

import copy
import subprocess
import sys
import time
import uuid
from typing import Any

import cbor2
import pytest
from pytest_django import Settings

from accounts import webauthn
from accounts.webauthn import CredentialError
from tests.rig.authenticator import (
    EDDSA,
    ELIGIBLE,
    ES256,
    ES384,
    PRESENT,
    RS256,
    VERIFIED,
    Authenticator,
    ec,
    ec_key,
    hashes,
    shared_bomb,
)
from tests.rig.machine import ROOT

CHALLENGE = "tqo5mJt9iU3LkGQ0ZbX8yQv1nC7wE2rH6sD4fA0pJxM"
HANDLE = uuid.UUID("8f14e45f-ceea-467f-a0e6-2f4a5bd3c1a9")
ORIGIN = "https://app.example.com"


@pytest.fixture(autouse=True)
def relying_party(settings: Settings) -> None:
    settings.WEBAUTHN_RP_ID = "example.com"
    settings.WEBAUTHN_ORIGINS = [ORIGIN, f"android:apk-key-hash:{'a' * 43}"]


@pytest.fixture
def passkey() -> Authenticator:
    return Authenticator(ORIGIN)


def creation() -> dict[str, Any]:
    return webauthn.creation_options(
        CHALLENGE, handle=HANDLE, name="alice", display_name="Alice", passkeys=[]
    )


def register(passkey: Authenticator, **bent: Any) -> webauthn.Registered:
    return webauthn.verify_registration(webauthn.read(passkey.create(creation(), **bent)))


def present(passkey: Authenticator, **bent: Any) -> dict[str, Any]:
    return passkey.get(webauthn.request_options(CHALLENGE), **bent)


def prove(passkey: Authenticator, **bent: Any) -> webauthn.Asserted:
    public_key = register(passkey).public_key
    return webauthn.verify_assertion(webauthn.read(present(passkey, **bent)), public_key)


class TestOptions:
    def test_a_request_without_passkeys_names_none(self) -> None:
        assert webauthn.request_options(CHALLENGE) == {
            "challenge": CHALLENGE,
            "timeout": 300_000,
            "rpId": "example.com",
            "userVerification": "required",
        }

    def test_a_request_names_passkeys(self) -> None:
        options = webauthn.request_options(CHALLENGE, [(b"\xfb\xff", ["usb"])])

        passkey = {"type": "public-key", "id": "-_8", "transports": ["usb"]}
        assert options["allowCredentials"] == [passkey]

    def test_a_creation_requires_a_passkey_that_verifies_its_user(self) -> None:
        options = webauthn.creation_options(
            CHALLENGE, handle=HANDLE, name="alice", display_name="Alice", passkeys=[(b"\1", [])]
        )

        assert options["rp"] == {"id": "example.com", "name": "Latchkey"}
        assert webauthn.decode(options["user"]["id"]) == HANDLE.bytes
        assert [kind["alg"] for kind in options["pubKeyCredParams"]] == [ES256, EDDSA, RS256]
        assert options["authenticatorSelection"]["residentKey"] == "required"
        assert options["authenticatorSelection"]["userVerification"] == "required"
        assert options["attestation"] == "none"
        assert [passkey["id"] for passkey in options["excludeCredentials"]] == ["AQ"]


class TestRegistration:
    @pytest.mark.parametrize("algorithm", [ES256, EDDSA, RS256])
    @pytest.mark.parametrize("synced", [True, False])
    def test_a_passkey_is_created_and_used(self, algorithm: int, synced: bool) -> None:
        passkey = Authenticator(ORIGIN, algorithm, synced=synced, counter=7)
        registered = register(passkey)

        assert registered.credential_id == passkey.credential_id
        assert (registered.synced, registered.sign_count) == (synced, 7)
        assert registered.transports == ["internal"]
        assert prove(passkey) == webauthn.Asserted(sign_count=8, synced=synced)

    def test_an_android_app_creates_and_uses_one(self) -> None:
        prove(Authenticator(f"android:apk-key-hash:{'a' * 43}"))

    @pytest.mark.parametrize("transports", [None, "usb", {"usb": 1}, ["usb", "carrier pigeon", 7]])
    def test_transports_that_are_unknown_are_dropped(
        self, passkey: Authenticator, transports: Any
    ) -> None:
        credential = passkey.create(creation())
        credential["response"]["transports"] = transports
        registered = webauthn.verify_registration(webauthn.read(credential))

        assert registered.transports == (["usb"] if isinstance(transports, list) else [])

    def test_an_extension_of_the_authenticator_is_read_over(self, passkey: Authenticator) -> None:
        register(passkey, extensions=cbor2.dumps({"credProtect": 2}))

    @pytest.mark.parametrize(
        "bent",
        [
            {"origin": "https://example.org"},
            {"origin": "https://other.example.com"},
            {"origin": "http://app.example.com"},
            {"cross_origin": True},
            {"rp_id": "example.org"},
            {"kind": "webauthn.get"},
            {"flags": PRESENT},  # the user was not verified
            {"flags": VERIFIED},  # nor present
            {"key": cbor2.dumps({1: 2, 3: ES256, -1: 1, -2: b"\1" * 32, -3: b"\1" * 32})},
            {"key": cbor2.dumps({1: 2, 3: ES256})},
            {"key": cbor2.dumps(4)},
            {"key": b""},
            {"key": shared_bomb(40)},
            {"extensions": shared_bomb(40)},
            {"extensions": b"\xa0\xa0"},
            {"extensions": b"\xbf\xff"},  # of open length
            {"extensions": b"\x5b" + b"\xff" * 8},
            {"aaguid": b""},
            {"attestation": {"fmt": "other"}},
            {"attestation": {"fmt": 7}},
            {"attestation": {"fmt": "packed", "attStmt": {"alg": ES256, "sig": b"no"}}},
            {"attestation": {"authData": "text"}},
            {"attestation": {"authData": b"short"}},
            {"attestation": {"attStmt": cbor2.CBORTag(28, [])}},
        ],
    )
    def test_a_bent_one_is_rejected(self, passkey: Authenticator, bent: dict[str, Any]) -> None:
        started = time.monotonic()
        with pytest.raises(CredentialError):
            register(passkey, **bent)

        assert time.monotonic() - started < 5

    def test_an_algorithm_that_was_not_offered_is_rejected(self) -> None:
        with pytest.raises(CredentialError):
            register(Authenticator(ORIGIN, ES384))

    def test_a_key_on_another_curve_is_rejected_at_its_first_use(self) -> None:
        passkey = Authenticator(ORIGIN)
        passkey.public_key, passkey.sign = ec_key(ES256, ec.SECP384R1(), 2, hashes.SHA384())

        with pytest.raises(CredentialError):
            prove(passkey)

    @pytest.mark.parametrize("attestation", [None, 7, "", "!", "oA", "gA", "oKA", "g"])
    def test_an_odd_attestation_is_rejected(self, passkey: Authenticator, attestation: Any) -> None:
        credential = passkey.create(creation())
        credential["response"]["attestationObject"] = attestation

        with pytest.raises(CredentialError):
            webauthn.verify_registration(webauthn.read(credential))

    def test_an_id_that_the_authenticator_did_not_attest_is_rejected(
        self, passkey: Authenticator
    ) -> None:
        credential = passkey.create(creation())
        credential["id"] = credential["rawId"] = "AAAA"

        with pytest.raises(CredentialError):
            webauthn.verify_registration(webauthn.read(credential))

    def test_an_id_that_is_too_long_is_rejected(self) -> None:
        with pytest.raises(CredentialError):
            register(Authenticator(ORIGIN, credential_id=bytes(1024)))


class TestAssertion:
    def test_an_extension_of_the_authenticator_is_read_over(self, passkey: Authenticator) -> None:
        prove(passkey, extensions=cbor2.dumps({"a": [1, b"b", -3, 1000, 100_000, 1.5, None]}))

    @pytest.mark.parametrize(
        "bent",
        [
            {"origin": "https://example.org"},
            {"origin": "https://other.example.com"},
            {"origin": "http://app.example.com"},
            {"origin": ["https://app.example.com"]},
            {"cross_origin": True},
            {"rp_id": "example.org"},
            {"rp_id": "app.example.com"},
            {"kind": "webauthn.create"},
            {"flags": PRESENT},
            {"flags": VERIFIED},
            {"flags": PRESENT | VERIFIED | 0x10},  # backed up, though it cannot be
            {"signature": b""},
            {"signature": b"no signature"},
            {"extensions": shared_bomb(40)},
            {"extensions": b""},
            {"extensions": b"\xc0\x60"},
        ],
    )
    def test_a_bent_one_is_rejected(self, passkey: Authenticator, bent: dict[str, Any]) -> None:
        started = time.monotonic()
        with pytest.raises(CredentialError):
            prove(passkey, **bent)

        assert time.monotonic() - started < 5

    def test_the_library_would_expand_a_bomb(self) -> None:
        """Without the check of accounts.webauthn each level doubles the time."""
        from webauthn.helpers import parse_authenticator_data

        data = bytes(32) + b"\x81" + bytes(4) + shared_bomb(12)

        assert len(parse_authenticator_data(data).extensions) > 2**12
        with pytest.raises(CredentialError):
            webauthn.check_authenticator_data(data)

    def test_another_key_is_rejected(self, passkey: Authenticator) -> None:
        public_key = register(Authenticator(ORIGIN)).public_key

        with pytest.raises(CredentialError):
            webauthn.verify_assertion(webauthn.read(present(passkey)), public_key)

    @pytest.mark.parametrize("byte", [0, 31, 32, 36])
    def test_signed_data_that_changed_is_rejected(self, passkey: Authenticator, byte: int) -> None:
        public_key = register(passkey).public_key
        credential = present(passkey)
        data = bytearray(webauthn.decode(credential["response"]["authenticatorData"]))
        data[byte] ^= ELIGIBLE
        credential["response"]["authenticatorData"] = webauthn.encode(bytes(data))

        with pytest.raises(CredentialError):
            webauthn.verify_assertion(webauthn.read(credential), public_key)

    @pytest.mark.parametrize(
        "data", [None, 7, {}, "", "AA", webauthn.encode(bytes(37)), webauthn.encode(b"\xff" * 60)]
    )
    def test_odd_data_is_rejected(self, passkey: Authenticator, data: Any) -> None:
        credential = present(passkey)
        credential["response"]["authenticatorData"] = data

        with pytest.raises(CredentialError):
            webauthn.verify_assertion(webauthn.read(credential), b"")


ODD: list[tuple[str, Any]] = [
    ("id", None),
    ("id", 7),
    ("id", ["AA"]),
    ("id", "AA=="),
    ("id", "A+/A"),
    ("id", "é"),
    ("response", None),
    ("response", "text"),
    ("response", []),
    ("clientDataJSON", None),
    ("clientDataJSON", 7),
    ("clientDataJSON", "!"),
    ("clientDataJSON", webauthn.encode(b"\xff\xff")),
    ("clientDataJSON", webauthn.encode(b"[]")),
    ("clientDataJSON", webauthn.encode(b"7")),
    ("clientDataJSON", webauthn.encode(b"{}")),
    ("clientDataJSON", webauthn.encode(b'{"challenge": 7}')),
    ("clientDataJSON", webauthn.encode(b'{"challenge": null}')),
    ("clientDataJSON", webauthn.encode(b"[" * 5000)),
    ("userHandle", 7),
    ("userHandle", {}),
    ("userHandle", ""),
    ("userHandle", "AAAA"),
    ("userHandle", webauthn.encode(bytes(17))),
]


class TestRead:
    def test_it_reads_who_and_what_for(self, passkey: Authenticator) -> None:
        register(passkey)
        credential = webauthn.read(present(passkey))

        assert credential.credential_id == passkey.credential_id
        assert (credential.challenge, credential.user_handle) == (CHALLENGE, HANDLE)

    def test_a_security_key_may_name_no_user(self, passkey: Authenticator) -> None:
        assert webauthn.read(present(passkey, user_handle=None)).user_handle is None

    @pytest.mark.parametrize("data", [None, [], ["id"], 7, 1.5, "text", True, {}, {"id": "AA"}])
    def test_what_is_no_credential_is_rejected(self, data: Any) -> None:
        with pytest.raises(CredentialError):
            webauthn.read(data)

    @pytest.mark.parametrize(("name", "value"), ODD)
    def test_an_odd_member_is_rejected(self, passkey: Authenticator, name: str, value: Any) -> None:
        credential = copy.deepcopy(present(passkey, user_handle=None))
        (credential if name in credential else credential["response"])[name] = value

        with pytest.raises(CredentialError):
            webauthn.read(credential)

    @pytest.mark.parametrize("name", ["id", "response"])
    def test_a_missing_member_is_rejected(self, passkey: Authenticator, name: str) -> None:
        credential = present(passkey, user_handle=None)
        del credential[name]

        with pytest.raises(CredentialError):
            webauthn.read(credential)

    def test_a_credential_above_the_limit_is_not_parsed(self, passkey: Authenticator) -> None:
        credential = present(passkey, user_handle=None)
        credential["clientExtensionResults"] = {"text": "a" * webauthn.LONGEST_CREDENTIAL}

        with pytest.raises(CredentialError):
            webauthn.read(credential)

    def test_a_deep_credential_is_rejected(self, passkey: Authenticator) -> None:
        credential: Any = present(passkey, user_handle=None)
        deep: list[Any] = []
        for _ in range(sys.getrecursionlimit()):
            deep = [deep]
        credential["clientExtensionResults"] = deep

        with pytest.raises(CredentialError):
            webauthn.read(credential)


def test_options_and_reading_do_not_import_the_library() -> None:
    code = """if True:
        import sys, uuid, django
        django.setup()
        from accounts import webauthn
        webauthn.request_options("AA", [(b"1", [])])
        webauthn.creation_options("A", handle=uuid.uuid4(), name="", display_name="", passkeys=[])
        try:
            webauthn.read({})
        except webauthn.CredentialError:
            print("webauthn" in sys.modules, "cbor2" in sys.modules)
    """
    environment = {"DJANGO_SETTINGS_MODULE": "config.tests.settings", "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert found.stdout == "False False\n", found.stderr

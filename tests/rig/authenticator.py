"""An authenticator in software: credentials as browsers send them, right ones and bent ones."""

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from accounts.webauthn import encode

ES256, EDDSA, ES384, RS256 = -7, -8, -35, -257
PRESENT, VERIFIED, ELIGIBLE, BACKED_UP, ATTESTED, EXTENDED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def ec_key(algorithm: int, curve: ec.EllipticCurve, number_of_curve: int, digest: Any) -> Any:
    key = ec.generate_private_key(curve)
    point = key.public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    x, y = (value.to_bytes(size, "big") for value in (point.x, point.y))
    cose = {1: 2, 3: algorithm, -1: number_of_curve, -2: x, -3: y}
    return cose, lambda data: key.sign(data, ec.ECDSA(digest))


def ed_key() -> Any:
    key = ed25519.Ed25519PrivateKey.generate()
    return {1: 1, 3: EDDSA, -1: 6, -2: key.public_key().public_bytes_raw()}, key.sign


def rsa_key() -> Any:
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    cose = {1: 3, 3: RS256, -1: number(numbers.n), -2: number(numbers.e)}
    return cose, lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


KEYS: dict[int, Callable[[], Any]] = {
    ES256: lambda: ec_key(ES256, ec.SECP256R1(), 1, hashes.SHA256()),
    ES384: lambda: ec_key(ES384, ec.SECP384R1(), 2, hashes.SHA384()),
    EDDSA: ed_key,
    RS256: rsa_key,
}


@dataclass
class Authenticator:
    """
    One passkey, in the browser of a page of `origin`.

    `create` and `get` take the options of the service. Each keyword bends one thing of the
    credential: another origin, flags, counter, challenge, type or signature.
    """

    origin: str = "http://localhost:3000"
    algorithm: int = ES256
    synced: bool = False
    counter: int = 0  # 0: it does not count
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    user_handle: str = ""
    response: Any = None  # of the service, when it was registered

    def __post_init__(self) -> None:
        self.public_key, self.sign = KEYS[self.algorithm]()

    def create(self, options: dict[str, Any], **bent: Any) -> dict[str, Any]:
        """Return RegistrationResponseJSON."""
        self.user_handle = options["user"]["id"]
        client = self.client_data("webauthn.create", options["challenge"], bent)
        attested = bent.get("aaguid", bytes(16)) + len(self.credential_id).to_bytes(2, "big")
        attested += self.credential_id + bent.get("key", cbor2.dumps(self.public_key))
        data = self.data(options["rp"]["id"], ATTESTED, bent) + attested
        statement = {"fmt": "none", "attStmt": {}, "authData": data + bent.get("extensions", b"")}
        attestation = cbor2.dumps(statement | bent.get("attestation", {}))
        response = {"clientDataJSON": encode(client), "attestationObject": encode(attestation)}
        return self.credential(response | {"transports": ["internal"]})

    def get(self, options: dict[str, Any], **bent: Any) -> dict[str, Any]:
        """Return AuthenticationResponseJSON."""
        self.counter += bool(self.counter)
        client = self.client_data("webauthn.get", options["challenge"], bent)
        data = self.data(options["rpId"], 0, bent)
        data += bent.get("extensions", b"")
        signature = bent.get("signature", self.sign(data + hashlib.sha256(client).digest()))
        return self.credential(
            {
                "clientDataJSON": encode(client),
                "authenticatorData": encode(data),
                "signature": encode(signature),
                "userHandle": bent.get("user_handle", self.user_handle),
            }
        )

    def client_data(self, kind: str, challenge: str, bent: dict[str, Any]) -> bytes:
        data = {
            "type": bent.get("kind", kind),
            "challenge": bent.get("challenge", challenge),
            "origin": bent.get("origin", self.origin),
            "crossOrigin": bent.get("cross_origin", False),
        }
        return json.dumps(data).encode()

    def data(self, rp_id: str, flags: int, bent: dict[str, Any]) -> bytes:
        eligible = ELIGIBLE | BACKED_UP if self.synced else 0
        flags |= bent.get("flags", PRESENT | VERIFIED | eligible)
        flags |= EXTENDED if "extensions" in bent else 0
        rp_id_hash = hashlib.sha256(bent.get("rp_id", rp_id).encode()).digest()
        counter: int = bent.get("counter", self.counter)
        return rp_id_hash + bytes([flags]) + counter.to_bytes(4, "big")

    def credential(self, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": encode(self.credential_id),
            "rawId": encode(self.credential_id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }


def shared_bomb(depth: int) -> bytes:
    """Return CBOR whose values share each other, so that it grows to 2^depth items."""
    shared = b"\xd8\x1c\x82" * depth + b"\xd8\x1c\x80"
    return shared + b"".join(b"\xd8\x1d" + cbor2.dumps(n + 1) for n in reversed(range(depth)))

"""Chromium's virtual authenticators (WebAuthn, section 11), through its DevTools protocol."""

from typing import Any

from playwright.sync_api import Page


class VirtualAuthenticator:
    """An authenticator of a window: built in (`internal`) or a security key (`usb`)."""

    def __init__(self, page: Page, transport: str = "internal", **options: Any) -> None:
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": transport,
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
            **options,
        }
        added = self.send("addVirtualAuthenticator", options=options)
        self.id = added["authenticatorId"]

    def send(self, method: str, **parameters: Any) -> Any:
        return self.devtools.send(f"WebAuthn.{method}", parameters)

    def of_it(self, method: str, **parameters: Any) -> Any:
        return self.send(method, authenticatorId=self.id, **parameters)

    @property
    def credentials(self) -> list[dict[str, Any]]:
        """The passkeys on it, each with its private key and counter."""
        found: list[dict[str, Any]] = self.of_it("getCredentials")["credentials"]
        return found

    def verify_user(self, is_verified: bool) -> None:
        self.of_it("setUserVerified", isUserVerified=is_verified)

    def replace(self, credential: dict[str, Any], **changes: Any) -> None:
        """Put a copy of a passkey in its place, as who clones a device does."""
        self.of_it("removeCredential", credentialId=credential["credentialId"])
        self.of_it("addCredential", credential=credential | changes)

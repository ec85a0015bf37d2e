"""
Password hashing: bcrypt in a bounded number of slots, and the rules of a new password.

At cost 14 a hash takes about a second of CPU. Unbounded hashing would take the cores from all other
requests. So a process hashes in `HASHING_PLACES` threads of low priority, a few requests wait
briefly for a slot, and the others get a 503 with `Retry-After`.
"""

import functools
import os
import re
import sys
import threading
import unicodedata
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import bcrypt
from django.conf import settings
from django.contrib.auth.hashers import (
    BCryptPasswordHasher,
    BCryptSHA256PasswordHasher,
    PBKDF2PasswordHasher,
)
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from prometheus_client import Gauge
from rest_framework.exceptions import APIException

from api.text import RAW_LENGTH_FACTOR, is_invisible

MAXIMUM_LENGTH = 128
CONTEXT_WORD_LENGTH = 4
BCRYPT_BYTES = 72
LONGEST_WAIT = 2.0
# Below 12 rounds, which only DEBUG allows, a hash takes milliseconds: requests wait for a turn.
CHEAP_ROUNDS = 12
CHEAP_WAIT = 1.0
FREE_THREADS = 3
NICENESS = 10

live: Any = {"multiprocess_mode": "livesum"}
PLACES = Gauge("latchkey_hashing_places", "Slots for hashing passwords.", **live)
PLACES_TAKEN = Gauge("latchkey_hashing_places_taken", "Passwords being hashed.", **live)
TURNS_TAKEN = Gauge(
    "latchkey_hashing_turns_taken", "Passwords being hashed or waiting for a slot.", **live
)


class HashingBusyError(APIException):
    """All hashing slots are in use; `wait` is in seconds."""

    status_code = 503
    default_code = "service_unavailable"
    wait = 2


class BoundedHasher:
    """A hasher that uses a slot of the process; raises HashingBusyError."""

    def encode(self, *args: Any) -> str:
        turns, places = take_turn()
        try:
            with TURNS_TAKEN.track_inprogress():
                return self.encode_in_place(places, *args)
        finally:
            turns.release()

    def encode_in_place(self, places: Executor, *args: Any) -> str:
        """Wait for a slot, at most `LONGEST_WAIT` seconds."""
        hashing = places.submit(self.encode_now, *args)
        try:
            return hashing.result(timeout=LONGEST_WAIT)
        except FutureTimeoutError:
            if hashing.cancel():
                raise HashingBusyError from None
        return hashing.result()

    def encode_now(self, *args: Any) -> str:
        with PLACES_TAKEN.track_inprogress():
            return super().encode(*args)  # type: ignore[misc,no-any-return]


class BoundedBCryptSHA256PasswordHasher(BoundedHasher, BCryptSHA256PasswordHasher):
    """bcrypt over SHA-256, so that no password is truncated at 72 bytes."""

    rounds = settings.BCRYPT_ROUNDS


class ImportedPBKDF2PasswordHasher(BoundedHasher, PBKDF2PasswordHasher):
    """Verifies the hashes of an import; the next login replaces them."""


class CuttingBCryptPasswordHasher(BCryptPasswordHasher):
    """bcrypt as libraries before 5.0 did it, which ignored what came after 72 bytes."""

    def encode(self, password: str, salt: str | bytes) -> str:
        # Cut as bytes: the last character may be cut in two.
        hashed = bcrypt.hashpw(password.encode()[:BCRYPT_BYTES], salt)  # type: ignore[arg-type]
        return f"{self.algorithm}${hashed.decode('ascii')}"


class ImportedBCryptPasswordHasher(BoundedHasher, CuttingBCryptPasswordHasher):
    """Verifies the hashes of an import; the next login replaces them by one of all bytes."""


def reject_when_full() -> None:
    """Raise HashingBusyError if no request may wait for a slot, before any other work."""
    turns, _ = take_turn()
    turns.release()


def take_turn() -> tuple[threading.BoundedSemaphore, ThreadPoolExecutor]:
    """Return `hashing_places` with a turn taken, or raise HashingBusyError."""
    turns, places = hashing_places()
    wait = CHEAP_WAIT if settings.BCRYPT_ROUNDS < CHEAP_ROUNDS else 0
    if not turns.acquire(timeout=wait):
        raise HashingBusyError
    return turns, places


@functools.cache
def hashing_places() -> tuple[threading.BoundedSemaphore, ThreadPoolExecutor]:
    """
    Return the semaphore of requests that hash or wait, and the executor with the hashing slots.

    The semaphore leaves threads of the server free for other requests.
    """
    turns = max(1, settings.WEB_THREADS - FREE_THREADS)
    places = min(settings.HASHING_PLACES, turns)
    PLACES.set(places)
    executor = ThreadPoolExecutor(places, "hashing", initializer=lower_priority)
    return threading.BoundedSemaphore(turns), executor


def lower_priority() -> None:
    """Lower the priority of this thread, so that other requests run first (Linux only)."""
    if sys.platform == "linux":  # pragma: no branch
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def folded(text: str) -> str:
    """Return text for comparisons in any letter case and width (Unicode's NFKC_Casefold)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class MaximumLengthValidator:
    """Reject a password that is too long, before it is hashed."""

    def validate(self, password: str, user: object = None) -> None:
        if len(password) > MAXIMUM_LENGTH:
            message = _("This password is too long. It may have %d characters.") % MAXIMUM_LENGTH
            raise ValidationError(message, code="password_too_long")

    def get_help_text(self) -> str:
        return _("Your password may have at most %d characters.") % MAXIMUM_LENGTH


class VisiblePasswordValidator:
    """Reject a password of nothing but whitespace and invisible characters."""

    def validate(self, password: str, user: object = None) -> None:
        if len(password) <= MAXIMUM_LENGTH and all(map(is_invisible, password)):
            message = _("This password contains no visible character.")
            raise ValidationError(message, code="password_blank")

    def get_help_text(self) -> str:
        return _("Your password must contain a visible character.")


class ContextWordsValidator:
    """Reject a password that contains a word which an attacker of this user tries (ASVS 6.2.11)."""

    def __init__(self, service_name: str) -> None:
        self.service_name = service_name

    def validate(self, password: str, user: Any = None) -> None:
        if len(password) > MAXIMUM_LENGTH:
            return
        password = folded(password)
        if any(folded(word) in password for word in self.words(user)):
            message = _("This password contains the name of the service, or a name of yours.")
            raise ValidationError(message, code="password_too_similar")

    def words(self, user: Any) -> list[str]:
        """List what identifies the service and the user; `names` also without its punctuation."""
        # There may be no user, an anonymous one, or one of a form, with None for a taken username.
        username, email, names = (
            getattr(user, name, None) or "" for name in ("username", "email", "names")
        )
        words = [self.service_name, username, email.partition("@")[0]]
        words += [*names.split(), *re.findall(r"\w+", names)]
        # A longer word does not occur in a password. Normalising it takes long.
        lengths = range(CONTEXT_WORD_LENGTH, RAW_LENGTH_FACTOR * MAXIMUM_LENGTH + 1)
        return [word for word in words if len(word) in lengths]

    def get_help_text(self) -> str:
        return _("Your password must not contain the name of the service, or a name of yours.")

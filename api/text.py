"""
Rules for text that clients send, shared by model fields and serializer fields.

Each rule checks the raw length first: Unicode normalisation is quadratic in combining marks and
holds the GIL. 20,000 characters take 0.6 s, 500,000 take minutes.
"""

import re
import unicodedata
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext as _

# Normalisation may shorten a text (decomposed letters), but never by more than this factor.
RAW_LENGTH_FACTOR = 4
# The limit of the Stream-Safe Text Format (UAX #15). PostgreSQL sorts each run of marks when it
# normalises a text: a run of 10,000 takes 0.6 s.
MAXIMUM_MARKS = 30
# These two letters become combining marks in NFKC.
HALFWIDTH_MARKS = frozenset("\uff9e\uff9f")
# Control characters, line separators, and the bidi embeddings, overrides and isolates with which a
# text reorders what is displayed around it.
UNSAFE_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
# Characters that render as nothing, or as a blank, although their category says otherwise.
INVISIBLE_CHARACTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# What is trimmed, once it is in NFKC. `strip` alone also removes control characters, which are
# rejected instead.
BLANKS = " \t\r\n\u1680"


def check_raw_length(text: str, max_length: int) -> None:
    """Raise ValidationError if a text is too long in any normal form."""
    if len(text) > RAW_LENGTH_FACTOR * max_length:
        message = _("Ensure this value has at most %d characters.") % max_length
        raise ValidationError(message, code="max_length")


def check_text(text: str, max_length: int) -> None:
    """Raise ValidationError if a text costs too much to normalise."""
    check_raw_length(text, max_length)
    if text.isascii():
        return
    marks = 0
    for character in text:
        marks = marks + 1 if is_combining_mark(character) else 0
        if marks > MAXIMUM_MARKS:
            message = _("At most %d combining marks in a row are allowed.") % MAXIMUM_MARKS
            raise ValidationError(message, code="invalid")


def is_combining_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or character in HALFWIDTH_MARKS


def normalize_line(text: str, max_length: int) -> str:
    """Return a single line of text, trimmed and in NFKC; raise ValidationError if it is unsafe."""
    check_text(text, max_length)
    line = unicodedata.normalize("NFKC", text).strip(BLANKS)
    if UNSAFE_CHARACTERS.search(line):
        message = _("Control characters and bidirectional overrides are not allowed.")
        raise ValidationError(message, code="invalid")
    return line


def is_invisible(character: str) -> bool:
    return (
        unicodedata.category(character) in INVISIBLE_CATEGORIES
        or INVISIBLE_CHARACTERS.match(character) is not None
    )


class LineField(models.CharField):  # type: ignore[type-arg]  # not generic at runtime
    """
    A model field for a single line of text, stored in NFKC without surrounding whitespace.

    Every write and every lookup normalises the text. `full_clean` and forms also reject unsafe
    characters and long runs of combining marks.
    """

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        # A longer text does not fit the column in any form.
        if text is None or len(text) > RAW_LENGTH_FACTOR * (self.max_length or 0):
            return text
        return unicodedata.normalize("NFKC", text).strip(BLANKS)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = super().pre_save(model_instance, add)
        if isinstance(value, str):  # It may be an expression.
            value = self.to_python(value)
            setattr(model_instance, self.attname, value)
        return value

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        if isinstance(value, str):
            value = normalize_line(value, self.max_length or 0)
        return super().clean(value, model_instance)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs


class MultilineField(models.TextField):  # type: ignore[type-arg]  # not generic at runtime
    """A model field for text of several lines, stored as sent; `max_length` is required."""

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        if isinstance(value, str):
            check_text(value, self.max_length or 0)
        return super().clean(value, model_instance)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs

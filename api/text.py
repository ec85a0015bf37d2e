"""
Text that strangers send, for models and for `api.fields`: measured first, then in one form.

Length comes before work: Unicode normalisation is quadratic in combining marks and holds the GIL.
20,000 characters take 0.6 s, 500,000 take minutes.
"""

import re
import unicodedata
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

# Normalisation may shorten a text (decomposed letters), but never by more than this factor.
RAW_LENGTH_FACTOR = 4
# Control characters, line separators, and the bidi embeddings, overrides and isolates with which a
# text reorders what is displayed around it.
UNSAFE_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
# Characters that render as nothing, or as a blank, although their category says otherwise.
INVISIBLE_CHARACTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


def check_raw_length(text: str, max_length: int) -> None:
    """Raise ValidationError for a text that is too long to be worth any further work."""
    if len(text) > RAW_LENGTH_FACTOR * max_length:
        message = f"Ensure this value has at most {max_length} characters."
        raise ValidationError(message, code="max_length")


def normalize_line(text: str, max_length: int) -> str:
    """Return a single line of text in NFKC and trimmed; raises ValidationError."""
    check_raw_length(text, max_length)
    line = unicodedata.normalize("NFKC", text).strip()
    if UNSAFE_CHARACTERS.search(line):
        message = "Control characters and bidirectional overrides are not allowed."
        raise ValidationError(message, code="invalid")
    return line


def is_invisible(character: str) -> bool:
    return (
        unicodedata.category(character) in INVISIBLE_CATEGORIES
        or INVISIBLE_CHARACTERS.match(character) is not None
    )


class LineField(models.CharField):  # type: ignore[type-arg]  # generic for mypy alone
    """A model field for a single line of text, which `full_clean` and every form normalise."""

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        if isinstance(value, str):
            value = normalize_line(value, self.max_length or 0)
        return super().clean(value, model_instance)

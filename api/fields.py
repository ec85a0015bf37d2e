"""Serializer fields that coerce nothing and check a raw length before any other work."""

import re
from typing import Any

from django.core.exceptions import ValidationError
from rest_framework import serializers
from rest_framework.fields import empty, get_error_detail

from api.text import check_text, normalize_line

DIGITS = re.compile(r"[0-9]{1,19}")


class StringField(serializers.CharField):
    """A JSON string; its raw length is checked before any other work."""

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **kwargs)
        self.limit = max_length

    def run_validation(self, data: Any = empty) -> Any:
        if isinstance(data, str):
            try:
                data = self.normalize(data)
            except ValidationError as error:
                raise serializers.ValidationError(get_error_detail(error)) from error
        elif data is not None and data is not empty:
            self.fail("invalid")
        return super().run_validation(data)

    def normalize(self, text: str) -> str:
        """Return the text to be validated; raise Django's ValidationError if it is rejected."""
        check_text(text, self.limit)
        return text


class LineField(StringField):
    """A single line of text in NFKC, trimmed, without control characters and bidi overrides."""

    def normalize(self, text: str) -> str:
        return normalize_line(text, self.limit)


class StrictIntegerField(serializers.IntegerField):
    """A JSON number; a string or a boolean is not coerced into one."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return super().to_internal_value(data)


class QueryIntegerField(serializers.IntegerField):
    """An id in a query string; `int` alone accepts "+1", "1_0" and digits of other scripts."""

    def to_internal_value(self, data: Any) -> int:
        if not DIGITS.fullmatch(data):
            self.fail("invalid")
        return super().to_internal_value(data)

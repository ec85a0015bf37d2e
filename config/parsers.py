import json
import re
from collections.abc import Mapping
from typing import IO, Any

from django.utils.http import parse_header_parameters
from rest_framework.exceptions import ErrorDetail, ParseError, UnsupportedMediaType, ValidationError
from rest_framework.parsers import JSONParser

UNSTORABLE = ErrorDetail("Null characters and surrogates are not allowed.", code="invalid")
UNSTORABLE_CHARACTERS = re.compile("[\x00\ud800-\udfff]")


class StrictJSONParser(JSONParser):
    """
    Read one JSON object (RFC 8259) in UTF-8 and refuse what others may read differently.

    NaN, infinities, duplicate keys and nesting beyond Python's depth are a parse error; NUL and
    lone surrogates, which PostgreSQL can't store, are a validation error that names the field.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        _, parameters = parse_header_parameters(media_type or "")
        if parameters.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType(media_type or "")
        try:
            data = json.loads(
                stream.read().decode(),
                object_pairs_hook=unique_pairs,
                parse_constant=refuse_constant,
            )
            if not isinstance(data, dict):
                raise ParseError
            unstorable = {field: [UNSTORABLE] for field in data if is_unstorable(data[field])}
            if is_unstorable(list(data)):
                raise ParseError
        except (ValueError, RecursionError) as error:
            raise ParseError from error
        if unstorable:
            raise ValidationError(unstorable)
        return data


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("duplicate keys")
    return data


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def is_unstorable(value: Any) -> bool:
    """Look for NUL or a lone surrogate in a string, or anywhere in what contains strings."""
    if isinstance(value, str):
        return UNSTORABLE_CHARACTERS.search(value) is not None
    if isinstance(value, dict):
        return any(is_unstorable(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return any(is_unstorable(item) for item in value)
    return False

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import IO, Any

from django.utils.http import parse_header_parameters
from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ParseError, UnsupportedMediaType, ValidationError
from rest_framework.parsers import JSONParser

from api.errors import MAXIMUM_ERRORS

# Strings, brackets and commas of one body. 500,000 fit into 1 MiB and take 0.5 s to parse; 10,000
# take 5 ms.
MAXIMUM_TOKENS = 10_000
UNSTORABLE_CHARACTERS = re.compile("[\x00\ud800-\udfff]")


class StrictJSONParser(JSONParser):
    """
    Parse one JSON object (RFC 8259) in UTF-8 and reject what parsers interpret differently.

    NaN, infinities, duplicate keys, too many tokens and nesting beyond Python's recursion limit are
    parse errors. NUL and lone surrogates, which PostgreSQL cannot store, are validation errors of
    their field.
    """

    kinds: tuple[Any, ...] = (dict,)

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        _, parameters = parse_header_parameters(media_type or "")
        if parameters.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType(media_type or "")
        try:
            data: Any = read_json(stream.read())
            if not isinstance(data, self.kinds):
                raise ParseError
            fields: Any = enumerate(data) if isinstance(data, list) else data.items()
            faulty = (str(field) for field, value in fields if is_unstorable(value))
            unstorable = list(itertools.islice(faulty, MAXIMUM_ERRORS))
        except (ValueError, RecursionError) as error:
            raise ParseError from error
        if unstorable:
            raise unstorable_error(unstorable)
        return data


class StrictJSONArrayParser(StrictJSONParser):
    """Parse a JSON array too, for a view that lists this parser in `parser_classes`."""

    kinds = (dict, list)


def read_json(body: bytes) -> Any:
    """Return the JSON value of a body; raise ValueError or RecursionError."""
    if exceeds_tokens(body):
        raise ValueError("too many tokens")
    data = json.loads(body.decode(), object_pairs_hook=unique_pairs, parse_constant=reject_constant)
    if isinstance(data, dict) and is_unstorable(list(data)):
        raise ValueError("keys that cannot be stored")
    return data


def exceeds_tokens(body: bytes) -> bool:
    """Return whether a body exceeds `MAXIMUM_TOKENS`, in 10 ms for 1 MiB."""
    if count_bytes(body, b'"{[,') <= MAXIMUM_TOKENS:
        return False
    # Most of these characters may be inside a few strings, where they are not tokens.
    body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    strings = body.count(b'"') // 2
    if strings > MAXIMUM_TOKENS:
        return True
    outside_strings = b"".join(body.split(b'"')[::2])
    return strings + count_bytes(outside_strings, b"{[,") > MAXIMUM_TOKENS


def count_bytes(body: bytes, which: bytes) -> int:
    return len(body) - len(body.translate(None, which))


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("duplicate keys")
    return data


def reject_constant(name: str) -> None:
    raise ValueError(name)


def unstorable_error(fields: Iterable[str]) -> ValidationError:
    text = _("Null characters and surrogates are not allowed.")
    return ValidationError({field: [ErrorDetail(text, code="invalid")] for field in fields})


def is_unstorable(value: Any) -> bool:
    """Return whether a value contains NUL or a lone surrogate at any depth."""
    if isinstance(value, str):
        return UNSTORABLE_CHARACTERS.search(value) is not None
    if isinstance(value, dict):
        return any(is_unstorable(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return any(is_unstorable(item) for item in value)
    return False

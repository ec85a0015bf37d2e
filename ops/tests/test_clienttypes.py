"""`manage.py clienttypes`: schemas that an owner's app may add."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from ops.management.commands.clienttypes import type_of, typescript

OBJECT = {
    "type": "object",
    "required": ["first-name"],
    "properties": {
        "first-name": {"type": "string", "description": "Of the\n owner */ x."},
        "size": {"type": ["integer", "null"]},
    },
}
OBJECT_TYPE = """{
  /** Of the owner * / x. */
  "first-name": string;
  size?: number | null;
}"""


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "unknown"),
        ({"$ref": "#/components/schemas/Order.Line"}, "Order_Line"),
        ({"const": 3}, "3"),
        ({"type": "string", "enum": ["a", None]}, '"a" | null'),
        ({"type": "array", "items": {"type": ["number", "null"]}}, "Array<number | null>"),
        ({"type": "array"}, "Array<unknown>"),
        ({"type": "object"}, "Record<string, unknown>"),
        ({"type": "object", "additionalProperties": False}, "Record<string, unknown>"),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            "Record<string, boolean>",
        ),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "(string) | (null)"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "(string) | (number)"),
        ({"allOf": [{"$ref": "#/x/A"}, {"$ref": "#/x/B"}]}, "(A) & (B)"),
        (OBJECT, OBJECT_TYPE),
    ],
)
def test_a_schema_has_a_type(schema: dict[str, Any], expected: str) -> None:
    assert type_of(schema) == expected


def content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema}}}


def test_routes_have_a_body_and_a_response() -> None:
    text = {"type": "string"}
    upload = {
        "requestBody": content("multipart/form-data", OBJECT),
        "responses": {
            "200": content("application/json", text),
            "201": content("application/json", text),
            "204": {"description": "nothing"},
            "400": content("application/problem+json", OBJECT),
        },
    }
    redirect = {"requestBody": content("application/json", text), "responses": {"302": {}}}
    paths = {
        "/api/v1/photo": {"post": upload, "put": redirect},
        "/hook": {"get": {"responses": {}}},
    }
    components = {"schemas": {"Order.Line": OBJECT, "Kind": {"enum": ["a"]}}}

    types = typescript({"paths": paths, "components": components})

    assert '  "POST /photo": { body: FormData; response: string | null };\n' in types
    assert '  "PUT /photo": { body: string; response: unknown };\n' in types
    assert '  "GET /hook": { response: unknown };\n' in types
    assert f"\nexport interface Order_Line {OBJECT_TYPE}\n" in types
    assert '\nexport type Kind = "a";\n' in types


def test_the_command_prints_the_types_of_this_service() -> None:
    output = StringIO()

    call_command("clienttypes", stdout=output)

    assert '\n  "GET /users/me": { response: User };\n' in output.getvalue()

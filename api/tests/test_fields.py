from typing import Any

import pytest
from rest_framework import serializers

from api.fields import LineField, QueryIntegerField, StrictIntegerField, StringField


class ThingSerializer(serializers.Serializer[Any]):
    text = StringField(max_length=10, allow_blank=True, trim_whitespace=False)
    line = LineField(max_length=10)
    number = StrictIntegerField(min_value=0, max_value=9)
    id = QueryIntegerField(min_value=1, max_value=2**63 - 1)


GOOD = {"text": " a\nb ", "line": " ｏne ", "number": 3, "id": "7"}


def validate(**changes: Any) -> tuple[dict[str, Any], dict[str, list[str]]]:
    serializer = ThingSerializer(data=GOOD | changes)
    serializer.is_valid()
    codes = {
        name: [detail.code for detail in details] for name, details in serializer.errors.items()
    }
    return serializer.validated_data, codes


def test_good_values() -> None:
    values, codes = validate()

    assert values == {"text": " a\nb ", "line": "one", "number": 3, "id": 7}
    assert codes == {}
    assert validate(text="", number=3.0)[0] == {"text": "", "line": "one", "number": 3, "id": 7}


@pytest.mark.parametrize("field", ["text", "line"])
@pytest.mark.parametrize("value", [1, 1.5, True, False, [], ["a"], {}, {"a": 1}])
def test_nothing_is_coerced_into_a_string(field: str, value: Any) -> None:
    assert validate(**{field: value})[1] == {field: ["invalid"]}


@pytest.mark.parametrize("value", ["3", "", True, False, [], {}, 1.5, float("inf"), 1e308])
def test_nothing_is_coerced_into_an_integer(value: Any) -> None:
    assert validate(number=value)[1] == {"number": ["invalid"]}


@pytest.mark.parametrize("value", ["+1", "1_0", " 1", "-1", "", "1.0", "١", "9" * 20, "9" * 10**6])
def test_an_id_is_digits(value: str) -> None:
    assert validate(id=value)[1] == {"id": ["invalid"]}


@pytest.mark.parametrize("field", ["text", "line"])
@pytest.mark.parametrize("value", ["x" * 11, "x" * 41, "a" + "\u0315\u0327" * 250_000])
def test_a_long_text_has_one_fault(field: str, value: str) -> None:
    assert validate(**{field: value})[1] == {field: ["max_length"]}


@pytest.mark.parametrize("field", ["text", "line"])
def test_a_long_run_of_combining_marks_is_rejected(field: str) -> None:
    assert validate(**{field: "\u0315\u0327" * 16})[1] == {field: ["invalid"]}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("", "blank"),
        (" \u3000", "blank"),
        (None, "null"),
        ("a\tb", "invalid"),
        ("\ufdfa", "max_length"),
    ],
)
def test_bad_lines(line: Any, code: str) -> None:
    assert validate(line=line)[1] == {"line": [code]}


def test_decomposed_letters_are_counted_as_they_are_stored() -> None:
    assert validate(line="e\u0301" * 10)[0]["line"] == "é" * 10


def test_a_missing_field_is_required() -> None:
    serializer = ThingSerializer(data={})

    assert not serializer.is_valid()
    assert {detail.code for [detail] in serializer.errors.values()} == {"required"}

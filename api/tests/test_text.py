import unicodedata
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db.models.functions import Upper

from api.text import LineField, MultilineField, check_text, is_invisible, normalize_line
from tests.articles.models import Article


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" Brass lamp ", "Brass lamp"),
        ("Cafe\u0301", "Café"),
        ("\ufb01ne of\ufb01ce", "fine office"),
        ("\u3000Ｌａｍｐ\u00a0", "Lamp"),
        ("شاه\u200cنامه", "شاه\u200cنامه"),  # a zero-width non-joiner belongs to Persian words
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("", ""),
    ],
)
def test_a_line_is_trimmed_and_in_nfkc(text: str, line: str) -> None:
    assert normalize_line(text, 20) == line


@pytest.mark.parametrize(
    "character", [*"\x00\t\n\r\x1b\x7f\x85\u2028\u2029\u202a\u202e\u2066\u2069"]
)
def test_a_line_holds_no_control_character_and_no_bidi_override(character: str) -> None:
    with pytest.raises(ValidationError) as caught:
        normalize_line(f"a{character}b", 20)

    assert caught.value.code == "invalid"


def test_nothing_is_normalised_before_its_length_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = []

    def normalize(form: str, text: str) -> str:
        normalised.append(text)
        return text

    monkeypatch.setattr(unicodedata, "normalize", normalize)

    normalize_line("x" * 80, 20)
    with pytest.raises(ValidationError) as caught:
        normalize_line("x" * 81, 20)

    assert caught.value.code == "max_length"
    assert normalised == ["x" * 80]


@pytest.mark.parametrize(
    "marks", ["\u0315\u0327" * 15 + "\u0315", "\uff9e" * 31, "\uff9e\u0334" * 16]
)
def test_a_long_run_of_combining_marks_is_rejected(marks: str) -> None:
    for check in (check_text, normalize_line):
        with pytest.raises(ValidationError) as caught:
            check(f"a{marks}b", 100)
        assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    "text", ["a" + "\u0315" * 30, ("a" + "\u0315" * 30) * 2, "\uff76\uff9e" * 40]
)
def test_short_runs_of_combining_marks_are_accepted(text: str) -> None:
    check_text(text, 100)
    assert normalize_line(text, 100) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("character", [*" \t\u00a0\u00ad\u200b\u2060\ufeff\u3164\ufe0f\u2800"])
def test_invisible_characters(character: str) -> None:
    assert is_invisible(character)


@pytest.mark.parametrize("character", [*"a.é漢🚀\u0301"])
def test_visible_characters(character: str) -> None:
    assert not is_invisible(character)


def test_a_model_field_validates_what_it_will_store() -> None:
    field = LineField(max_length=20)

    assert field.clean(" Cafe\u0301 ", None) == "Café"
    for value, code in (
        ("\ufdfa" * 3, "max_length"),
        ("a\nb", "invalid"),
        ("\u0315" * 31, "invalid"),
        (None, "null"),
    ):
        with pytest.raises(ValidationError) as caught:
            field.clean(value, None)
        assert [error.code for error in caught.value.error_list] == [code]


def test_a_multiline_field_rejects_only_what_costs_too_much() -> None:
    field = MultilineField(max_length=20)

    assert field.clean(" a\n\tb\ufb01 ", None) == " a\n\tb\ufb01 "
    for value, code in (("x" * 81, "max_length"), ("\u0315" * 31, "invalid"), (None, "null")):
        with pytest.raises(ValidationError) as caught:
            field.clean(value, None)
        assert [error.code for error in caught.value.error_list] == [code]


@pytest.mark.parametrize(
    ("field", "base"), [(LineField, "CharField"), (MultilineField, "TextField")]
)
def test_migrations_hold_the_fields_of_django(field: Any, base: str) -> None:
    _, path, args, options = field(max_length=20).deconstruct()

    assert (path, args, options) == (f"django.db.models.{base}", [], {"max_length": 20})


@pytest.mark.parametrize("character", "\x1c\x1f\x85\u2028")
def test_a_control_character_at_the_end_is_not_trimmed(character: str) -> None:
    with pytest.raises(ValidationError):
        normalize_line(f"Lamp{character}", 200)


@pytest.mark.parametrize("blank", " \t\r\n\u00a0\u1680\u2003\u3000")
def test_blanks_at_the_ends_are_trimmed(blank: str) -> None:
    assert normalize_line(f"{blank}Lamp{blank}", 200) == "Lamp"


def test_an_expression_is_stored_as_it_is(user: Any) -> None:
    article = Article.objects.create(owner=user, title=" Lamp ", amount=1)
    article.title = Upper("title")
    article.save()

    article.refresh_from_db()

    assert article.title == "LAMP"

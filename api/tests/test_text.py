import unicodedata

import pytest
from django.core.exceptions import ValidationError

from api.text import LineField, is_invisible, normalize_line


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


@pytest.mark.parametrize("character", [*" \t\u00a0\u00ad\u200b\u2060\ufeff\u3164\ufe0f\u2800"])
def test_invisible_characters(character: str) -> None:
    assert is_invisible(character)


@pytest.mark.parametrize("character", [*"a.é漢🚀\u0301"])
def test_visible_characters(character: str) -> None:
    assert not is_invisible(character)


def test_a_model_field_validates_what_it_will_store() -> None:
    field = LineField(max_length=20)

    assert field.clean(" Cafe\u0301 ", None) == "Café"
    for value, code in (("\ufdfa" * 3, "max_length"), ("a\nb", "invalid"), (None, "null")):
        with pytest.raises(ValidationError) as caught:
            field.clean(value, None)
        assert [error.code for error in caught.value.error_list] == [code]

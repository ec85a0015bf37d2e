"""Submit the console's forms as a browser does."""

from html.parser import HTMLParser
from typing import Any

from django.http import HttpResponse

Fields = dict[str, list[str]]
CHECKED = {"checkbox", "radio"}
BUTTONS = {"submit", "button", "reset", "image", "file"}


class FormParser(HTMLParser):
    """Collect the fields that the forms of a page would send unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: Fields = {}
        self.select = self.textarea = self.text = ""

    def add(self, name: str, value: str) -> None:
        """Add a field; browsers send line breaks as CRLF."""
        if name:
            value = value.replace("\r\n", "\n").replace("\n", "\r\n")
            self.fields.setdefault(name, []).append(value)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "input":
            self.add_input(given)
        elif tag == "select":
            self.select = given["name"]
        elif tag == "option" and "selected" in given:
            self.add(self.select, given["value"])
        elif tag == "textarea":
            self.textarea, self.text = given["name"], ""

    def add_input(self, given: dict[str, str]) -> None:
        kind = given.get("type")
        if kind in CHECKED and "checked" in given:
            self.add(given["name"], given.get("value", "on"))
        elif kind not in CHECKED | BUTTONS:
            self.add(given.get("name", ""), given.get("value", ""))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self.add(self.textarea, self.text.removeprefix("\n"))


def fields_of(page: HttpResponse) -> Fields:
    """Return the fields of an unchanged page."""
    assert page.status_code == 200
    parser = FormParser()
    parser.feed(page.content.decode())
    return parser.fields

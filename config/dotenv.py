"""
Read a `.env` file strictly, and report the faults of invalid lines.

django-environ parses the valid lines. It would drop invalid ones, or log them with their secrets.
"""

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import environ

from ops import files

LINE = re.compile(
    r"""
    (?:export[ ])?
    ([A-Z_][A-Z0-9_]*)
    =
    (?: '[^'"]*'
      | "(?:[^"\\]|\\.)*"
      | (?!.*\s\#) [^\s'"\#] [^'"]*
    )?
    """,
    re.VERBOSE,
)
FORM = "must be NAME=value: no spaces around =, quotes that match, comments on lines of their own"


@dataclass
class Dotenv:
    values: dict[str, str] = field(default_factory=dict)
    # Faults by line number; 0 is the whole file.
    faults: dict[int, str] = field(default_factory=dict)
    # The variables that an invalid line probably sets, by line number.
    names: dict[int, list[str]] = field(default_factory=dict)

    def describe(self, number: int) -> str:
        source = f"Line {number} of .env" if number else ".env"
        return f"{source} {self.faults[number]}."


def read_dotenv(path: Path) -> Dotenv:
    if not (path.exists() or path.is_symlink()):
        return Dotenv()
    try:
        text = files.read_text(path)
    except OSError:
        fault = f"must be a file of UTF-8 text that can be read, of at most {files.MAX_BYTES} bytes"
        return Dotenv(faults={0: fault})
    return parse(text)


def parse(text: str) -> Dotenv:
    found = Dotenv()
    lines: dict[str, str] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        line = line.rstrip(" \t")
        match = LINE.fullmatch(line)
        if fault := line_fault(line, match[1] if match else "", lines):
            found.faults[number] = fault
            found.names[number] = possible_names(line)
        elif match:
            lines[match[1]] = line

    class Source(environ.Env):  # type: ignore[misc]  # untyped library
        ENVIRON = found.values

    Source.read_env(io.StringIO("\n".join(lines.values())))
    return found


def possible_names(line: str) -> list[str]:
    """Return the words that may be the variable's name, without words of its value."""
    start = re.split("[=:]", line)[0]
    return re.findall(r"\w+", start.upper())[:2]


def line_fault(line: str, name: str, earlier: dict[str, str]) -> str:
    """Return the fault of a line, or an empty string. `name` is the variable of a valid line."""
    is_comment = line.lstrip().startswith("#")
    if not line or (is_comment and len(line.splitlines()) == 1):
        return ""
    if not line.isprintable():
        return "must be UTF-8 text without control characters"
    if not name:
        return FORM
    return "sets a variable that an earlier line sets" if name in earlier else ""

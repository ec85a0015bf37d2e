#!/usr/bin/env python
"""Django's command-line utility with the project's startup checks."""

import os
import sys

# Commands that run without a valid configuration, or report its faults themselves.
UNCHECKED = {"help", "--help", "-h", "version", "--version"}
UNCHECKED |= {"generatesecrets", "setup", "doctor", "collectstatic"}


def asks_for_help(arguments: list[str]) -> bool:
    """Tell a command's own --help from what follows `--`, which is for another program."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return not {"--help", "-h"}.isdisjoint(own)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command not in UNCHECKED and not asks_for_help(sys.argv[2:]):
        from config.startup import exit_on_faults

        exit_on_faults()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()

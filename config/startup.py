"""The startup checks, which every entry point runs first."""

import functools
import itertools
import sys
from typing import Any

import django
from django.core.checks import run_checks

from config.checks import SERVER


@functools.cache
def exit_on_faults(*, with_database: bool = False) -> None:
    """Exit with 1 and a list of all faults if the configuration has any."""
    django.setup()
    scope: dict[str, Any] = {"tags": [SERVER], "databases": ["default"]} if with_database else {}
    faults = [m for m in run_checks(**scope) if m.is_serious() and not m.is_silenced()]
    if not faults:
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    sys.stderr.write(f"The configuration has {count}:\n")
    faults.sort(key=lambda fault: (fault.id or "", fault.msg))
    for hint, group in itertools.groupby(faults, key=lambda fault: fault.hint):
        for fault in group:
            sys.stderr.write(f"  - {fault.msg} ({fault.id})\n")
        sys.stderr.write(f"      {hint}\n" if hint else "")
    sys.exit(1)

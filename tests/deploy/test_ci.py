"""The workflows of CI."""

import re

from tests.rig.machine import ROOT


def test_every_action_is_pinned_by_commit_with_its_version_beside_it() -> None:
    """A tag can be moved to other code; Dependabot updates both the commit and the comment."""
    workflows = [path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")]
    uses = [line for text in workflows for line in re.findall(r"uses: (.*)", text)]

    assert uses
    for line in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line

"""Changes to the project's own files."""

from pathlib import Path

from ops.checkout import write_client_types


def test_the_types_of_the_clients_are_written_by_a_new_process(tmp_path: Path) -> None:
    types = tmp_path / "docs/clients/schema.d.ts"
    types.parent.mkdir(parents=True)
    types.write_text("old")
    (tmp_path / "manage.py").write_text("import sys; print(sys.argv[1:])")

    write_client_types(tmp_path)

    assert types.read_text() == "['clienttypes']\n"

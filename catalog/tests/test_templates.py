"""The templates of `manage.py startresource` have the shape of this app."""

import re
from pathlib import Path

import pytest

from ops.management.commands.startresource import Command, names_of
from tests.rig.machine import ROOT

FILES = ["admin.py", "apps.py", "models.py", "permissions.py", "serializers.py", "urls.py"]
FILES += ["views.py", "migrations/0002_catalog_group.py"]


def words(text: str) -> list[str]:
    """Return the words and marks of a module, without imports, comments and types of querysets."""
    text = re.sub(r"(?ms)^(?:from [\w.]+ )?import (?:\(.*?\)|.*?)$", "", text)
    text = re.sub(r"#.*", "", text)
    text = re.sub(r"ProductQuerySet|QuerySet\[\w+\]", "QuerySet", text)
    return re.findall(r"\w+|[^\w\s,]", text)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("app") / "catalog"
    names = names_of("catalog", "Product") | {"route": "product", "related_name": "products"}
    names |= {"many": "products", "plural": "", "group": "Catalog"}
    Command().render(directory, names, owner=True)
    return directory


@pytest.mark.parametrize("name", FILES)
def test_an_app_from_the_templates_is_the_catalog_without_its_search(
    rendered: Path, name: str
) -> None:
    template = rendered / name.replace("_catalog", "")
    here = iter(words((ROOT / "catalog" / name).read_text()))

    missing = [word for word in words(template.read_text()) if word not in here]

    assert missing == []

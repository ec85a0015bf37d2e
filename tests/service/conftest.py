import importlib.util
import re
from pathlib import Path

# The catalog is the example that the README and tests of the whole service use. They leave with it.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if importlib.util.find_spec("catalog") is None
    and re.search(r"\bcatalog\b|/product\b|README\.md", path.read_text())
]

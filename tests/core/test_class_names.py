import ast
from collections import defaultdict
from pathlib import Path

import celery_monitor


def test_every_class_has_a_name_of_its_own() -> None:
    """Class names are unique, so that a search finds one class. A leading underscore does not make a name different."""
    root = Path(celery_monitor.__file__).parent
    places = defaultdict(list)
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{path.relative_to(root)}:{node.lineno}")
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}

"""The chart's generated files."""

import importlib.util
from types import ModuleType

import pytest
import yaml

from tests.deploy.conftest import CHART, ROOT


@pytest.fixture(scope="module")
def assemble() -> ModuleType:
    """The script that writes them."""
    spec = importlib.util.spec_from_file_location("assemble", ROOT / "helm" / "assemble.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_copies_are_current(assemble: ModuleType) -> None:
    """Rules, dashboards, schema and table equal the output of helm/assemble.py: run it if this fails."""
    files = assemble.assembled()
    stale = [str(path.relative_to(ROOT)) for path, text in files.items() if path.read_text() != text]
    assert not stale
    assert set((CHART / "files").glob("*/*")) <= files.keys()


def test_every_value_is_in_the_schema(assemble: ModuleType) -> None:
    """Each value is in the schema and the table, and the schema has no other."""
    schema = yaml.safe_load((ROOT / "helm" / "values.schema.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}
    table = assemble.values_table()
    for name in values:
        assert f"| `{name}" in table


def test_version_is_the_program_s() -> None:
    """The chart installs the program's version with which it is shipped."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()

"""Imports go one way: core <- accounts <- devices <- firmware <- campaigns <- the rest of otaplatform."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["otaplatform.core", "otaplatform.accounts", "devices", "firmware", "campaigns", "otaplatform"]


def floor(module: str) -> int | None:
    """How high a module lives; None for packages that are not ours."""
    for package in ("otaplatform.core", "otaplatform.accounts"):
        if f"{module}.".startswith(f"{package}."):
            return FLOORS.index(package)
    top = module.split(".")[0]
    return FLOORS.index(top) if top in FLOORS else None


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """The modules that a file imports anywhere in it, with the line."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from otaplatform import accounts` imports the package below, not its parent.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def upward(path: Path) -> list[str]:
    """The imports of a file that reach above its own floor."""
    here = floor(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert here is not None
    return [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for line, module in imported(path)
        if (there := floor(module)) is not None and there > here
    ]


@pytest.mark.parametrize(
    "package", ["otaplatform/core", "otaplatform/accounts", "devices", "firmware", "campaigns"]
)
def test_nothing_imports_from_a_floor_above(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert [line for path in files for line in upward(path)] == []


def test_an_upward_import_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_imports.ROOT", tmp_path)
    (tmp_path / "devices").mkdir()
    module = tmp_path / "devices" / "bad.py"
    module.write_text(
        "from otaplatform.accounts import audit\nfrom campaigns import sweep\nimport otaplatform.health\n"
    )
    assert upward(module) == [
        "devices/bad.py:2 imports campaigns.sweep",
        "devices/bad.py:3 imports otaplatform.health",
    ]

"""Files of others that we serve are those that were released."""

import hashlib
from pathlib import Path

import pytest

VENDOR = Path(__file__).parents[2] / "otaplatform" / "static" / "vendor"
# Of the npm package echarts 6.1.0: dist/echarts.simple.min.js, LICENSE, NOTICE.
RELEASED = {
    "echarts/echarts.simple.min.js": "5eef51bee09fb9cc234c4179a58ae0150126f49f88c992efe2d6bca81d8dd03b",
    "echarts/LICENSE": "634293835b43a6dd2094fa39182a3d9a6b9ca43b7fdb9ac354e8037af2a3093a",
    "echarts/NOTICE": "d491d358344f842685c1b1585970999db65fe30ecf7ef3867af8814f4016c016",
}


def test_every_vendored_file_is_known() -> None:
    found = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()}
    assert found == set(RELEASED)


@pytest.mark.parametrize("name", RELEASED)
def test_a_vendored_file_is_the_released_one(name: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == RELEASED[name]

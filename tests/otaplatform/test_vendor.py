"""What others made and we carry along is exactly what they published."""

import hashlib
from pathlib import Path

VENDOR = Path(__file__).parent.parent / "vendor"


def test_vendored_files_of_the_tests_are_unchanged() -> None:
    listed = dict(reversed(line.split("  ", 1)) for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    found = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.glob("*/*")
    }
    assert found == listed

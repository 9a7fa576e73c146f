"""What is committed fits together: migrations with models, the compiled catalogue with its source."""

import re
from pathlib import Path

import polib
import pytest
from django.core.management import call_command

CATALOGUES = sorted((Path(__file__).resolve().parent.parent / "locale").rglob("*.po"))
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}")


@pytest.mark.django_db
def test_no_model_change_is_without_its_migration() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_every_string_is_translated(path: Path) -> None:
    catalogue = polib.pofile(str(path))
    assert [entry.msgid for entry in catalogue if entry.fuzzy or not entry.translated()] == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_translations_keep_the_placeholders(path: Path) -> None:
    different = [
        entry.msgid
        for entry in polib.pofile(str(path))
        if entry.translated()
        for text in (entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr])
        if set(PLACEHOLDER.findall(entry.msgid_plural or entry.msgid)) != set(PLACEHOLDER.findall(text))
    ]
    assert different == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_the_compiled_catalogue_is_that_of_the_source(path: Path) -> None:
    compiled = polib.mofile(str(path.with_suffix(".mo")))

    def texts(entries: polib.POFile | polib.MOFile) -> set[tuple[str, str, str]]:
        return {
            (entry.msgctxt or "", entry.msgid, entry.msgstr or str(sorted(entry.msgstr_plural.items())))
            for entry in entries
        }

    assert texts(compiled) == texts(polib.pofile(str(path)))


def test_there_is_a_catalogue() -> None:
    assert {path.stem for path in CATALOGUES} >= {"django"}

"""What is committed fits together: migrations with models, the compiled catalogue with its source."""

import re
from pathlib import Path

import polib
import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parent.parent
CATALOGUES = sorted((ROOT / "locale").rglob("*.po"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
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
    def texts(entries: list[polib.POEntry] | list[polib.MOEntry]) -> set[tuple[str, str, str]]:
        return {
            (entry.msgctxt or "", entry.msgid, entry.msgstr or str(sorted(entry.msgstr_plural.items())))
            for entry in entries
        }

    compiled = polib.mofile(str(path.with_suffix(".mo")))
    assert texts(list(compiled)) == texts(polib.pofile(str(path)).translated_entries())


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_what_a_page_of_the_documentation_links_to_exists(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_there_is_a_catalogue() -> None:
    assert {path.stem for path in CATALOGUES} >= {"django"}

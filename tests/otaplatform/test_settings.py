"""Settings whose parts must fit together."""

import re
from pathlib import Path

from channels_redis.core import RedisChannelLayer

from otaplatform import settings


def test_a_quiet_live_page_waits_in_redis_for_less_than_the_connection_gives_a_read() -> None:
    layer = RedisChannelLayer(**settings.CHANNEL_LAYERS["default"]["CONFIG"])
    patience = layer.create_pool(0).connection_kwargs["socket_timeout"]
    assert patience is not None, "a dead server would never be noticed"
    assert patience > layer.brpop_timeout


def test_every_variable_of_the_environment_that_is_read_is_explained() -> None:
    """In docs/operations.md, or docs/storage.md for where files are kept."""
    text = Path(settings.__file__).read_text()
    names = set(re.findall(r'(?:env\.\w+|truth|port|whole_number)\(\s*"([A-Z][A-Z0-9_]+)"', text))
    assert {"OTA_DATA_DIR", "OTA_DEBUG", "OTA_CELERY_BROKER_URL", "OTA_API_RATE"} <= names
    docs = settings.BASE_DIR / "docs"
    pages = [(docs / page).read_text() for page in ("operations.md", "storage.md")]
    said = {name for page in pages for name in re.findall(r"`([A-Z][A-Z0-9_]+)[`=]", page)}
    assert sorted(names - said) == []

"""Settings whose parts must fit together."""

from channels_redis.core import RedisChannelLayer

from otaplatform import settings


def test_a_quiet_live_page_waits_in_redis_for_less_than_the_connection_gives_a_read() -> None:
    layer = RedisChannelLayer(**settings.CHANNEL_LAYERS["default"]["CONFIG"])
    patience = layer.create_pool(0).connection_kwargs["socket_timeout"]
    assert patience is not None, "a dead server would never be noticed"
    assert patience > layer.brpop_timeout

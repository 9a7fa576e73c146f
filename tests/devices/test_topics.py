from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import topics
from devices.topics import Action, Kind

names = st.text("abcXYZ019_.:@-", min_size=1, max_size=32)
SUBSCRIBE, PUBLISH = Action.SUBSCRIBE, Action.PUBLISH


@given(st.sampled_from(Kind), names, names)
def test_parse_reads_what_build_writes(kind: Kind, product_key: str, device_name: str) -> None:
    assert topics.parse(topics.build(kind, product_key, device_name)) == (kind, product_key, device_name)


@given(st.text("/+#$otasyabc", max_size=60) | st.text(max_size=60), st.sampled_from(Action))
def test_any_text_is_judged_without_an_error(text: str, action: Action) -> None:
    parsed = topics.parse(text)
    assert parsed is None or topics.build(*parsed) == text
    if topics.allowed("pk", "dn", action, text):
        assert "pk" in text.split("/") or text in (topics.REGISTER_REPLY, topics.REGISTER_WITHOUT_LIST_REPLY)


@given(st.sampled_from(Kind), st.sampled_from(Action), names, names)
def test_a_device_never_gets_at_a_topic_of_another(kind: Kind, action: Action, pk: str, dn: str) -> None:
    topic = topics.build(kind, pk, dn)
    assert not topics.allowed(pk, dn + "x", action, topic)
    assert not topics.allowed(pk + "x", dn, action, topic)


@pytest.mark.parametrize(
    ("action", "topic"),
    [
        (PUBLISH, "/ota/device/inform/pk/dn"),
        (PUBLISH, "/ota/device/progress/pk/dn"),
        (PUBLISH, "/ota/device/request/pk/dn"),
        (PUBLISH, "/sys/pk/dn/thing/ota/firmware/get"),
        (PUBLISH, "/sys/pk/dn/thing/deviceinfo/update"),
        (PUBLISH, "/ext/session/pk/dn/combine/login"),
        (PUBLISH, "/ext/rrpc/123/pk/dn/user/get"),
        (PUBLISH, "/shadow/update/pk/dn"),
        (PUBLISH, "/pk/dn/user/update"),
        (SUBSCRIBE, "/ota/device/upgrade/pk/dn"),
        (SUBSCRIBE, "/ota/device/request/pk/dn"),
        (SUBSCRIBE, "/sys/pk/dn/#"),
        (SUBSCRIBE, "/sys/pk/dn/rrpc/request/+"),
        (SUBSCRIBE, "/sys/pk/dn/thing/config/get_reply"),
        (SUBSCRIBE, "/ext/session/pk/dn/combine/logout_reply"),
        (SUBSCRIBE, "/ext/rrpc/+/pk/dn/user/get"),
        (SUBSCRIBE, "/ext/rrpc/+//pk/dn/user/get"),
        (SUBSCRIBE, "/ext/ntp/pk/dn/response"),
        (SUBSCRIBE, "/ext/error/pk/dn"),
        (SUBSCRIBE, "/shadow/get/pk/dn"),
        (SUBSCRIBE, "/ext/register"),
    ],
)
def test_a_device_uses_its_own_topics(action: Action, topic: str) -> None:
    assert topics.allowed("pk", "dn", action, topic)


@pytest.mark.parametrize(
    ("action", "topic"),
    [
        (PUBLISH, "/ota/device/upgrade/pk/dn"),
        (PUBLISH, "/sys/pk/dn/thing/file/download_reply"),
        (PUBLISH, "/sys/pk/dn2/thing/ota/firmware/get"),
        (PUBLISH, "/ext/register"),
        (PUBLISH, "/ext/error/pk/dn2"),
        (PUBLISH, "$ota/presence/pk/dn"),
        (PUBLISH, "$ota/kick/pk/dn"),
        (PUBLISH, "$ota/epoch"),
        (PUBLISH, "/sys/pk/dn/" + "x" * 128),
        (PUBLISH, "/sys/pk/dn" + "/a" * 20),
        (SUBSCRIBE, "#"),
        (SUBSCRIBE, "/#"),
        (SUBSCRIBE, "/sys/#"),
        (SUBSCRIBE, "/sys/pk/#"),
        (SUBSCRIBE, "/sys/pk/+/thing/x"),
        (SUBSCRIBE, "/sys/+/dn/thing/x"),
        (SUBSCRIBE, "/ota/device/+/pk/dn"),
        (SUBSCRIBE, "/ota/device/upgrade/pk/+"),
        (SUBSCRIBE, "/sys/pk/dn/a#"),
        (SUBSCRIBE, "/sys/pk/dn/#/a"),
        (SUBSCRIBE, "/ext/rrpc/#"),
        (SUBSCRIBE, "/ext/rrpc/+/pk/dn2/user/get"),
        (SUBSCRIBE, "$ota/#"),
        (SUBSCRIBE, "$ota/presence/pk/dn"),
        (SUBSCRIBE, ""),
    ],
)
def test_a_device_gets_no_further(action: Action, topic: str) -> None:
    assert not topics.allowed("pk", "dn", action, topic)


@given(st.sampled_from(Kind))
def test_the_gateway_subscribes_to_every_report_and_to_presence(kind: Kind) -> None:
    heard = topics.build(kind, "+", "+") in topics.GATEWAY_FILTERS
    assert heard == (kind in topics.UPLINK or kind is Kind.PRESENCE)

"""What each SDK connects with, and that only the holder of the secret gets in.

The expected signatures are made here from texts written out by hand, not by the code under test.
"""

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.credentials import (
    BadCredentials,
    Credentials,
    Kind,
    http_auth,
    is_fresh,
    mqtt_login,
    mqtt_registration,
    parse,
    parse_auth,
    parse_registration,
    password_matches,
    sign,
)

PK, DN, SECRET = "a1B2c3D4e5F", "lamp-01", "Zz9y8X7w6V5u4T3s2R1q0P"
USERNAME = "lamp-01&a1B2c3D4e5F"


def by_hand(text: str, digest: str, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), text.encode(), digest).hexdigest()


@pytest.mark.parametrize(
    ("client_id", "signed_text", "digest"),
    [
        pytest.param(
            "a1B2c3D4e5F&lamp-01|securemode=2,signmethod=hmacsha1,ext=1,_ss=1,lan=Python,_v=1.2.13,"
            "sii=abc,timestamp=1700000000|",
            "clientIda1B2c3D4e5F&lamp-01deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp1700000000",
            "sha1",
            id="Python",
        ),
        pytest.param(
            "a1B2c3D4e5F&lamp-01|securemode=3,signmethod=hmacsha1,timestamp=1700000000123,lan=NodeJS,_v=1.2.8|",
            "clientIda1B2c3D4e5F&lamp-01deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp1700000000123",
            "sha1",
            id="Node 1.2.8",
        ),
        pytest.param(
            "a1B2c3D4e5F&lamp-01_aliyun-iot-device-sdk-js|securemode=3,\n      signmethod=hmacsha1,\r\n"
            "      timestamp=1700000000123|",
            "clientIda1B2c3D4e5F&lamp-01_aliyun-iot-device-sdk-jsdeviceNamelamp-01productKeya1B2c3D4e5F"
            "timestamp1700000000123",
            "sha1",
            id="Node 1.0.1, lines and blanks inside",
        ),
        pytest.param(
            "a1B2c3D4e5F.lamp-01|timestamp=2524608000000,_ss=1,_v=sdk-c-4.1.0,securemode=3,"
            "signmethod=hmacsha256,ext=3,_conn=tls_0|",
            "clientIda1B2c3D4e5F.lamp-01deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp2524608000000",
            "sha256",
            id="Link SDK 4.1",
        ),
        pytest.param(
            "a1B2c3D4e5F.lamp-01|timestamp=2524608000000,_ss=1,_v=sdk-c-4.1.0,securemode=3,"
            "signmethod=hmacsha256,ext=3,|",
            "clientIda1B2c3D4e5F.lamp-01deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp2524608000000",
            "sha256",
            id="Link SDK 4.1, nothing to extend",
        ),
        pytest.param(
            "|timestamp=2524608000000,_ss=1,securemode=3,signmethod=hmacsha256,ext=3,|",
            "clientIddeviceNamelamp-01productKeya1B2c3D4e5Ftimestamp2524608000000",
            "sha256",
            id="Link SDK, id by the server",
        ),
        pytest.param(
            "a1B2c3D4e5F.lamp-01|timestamp=2524608000000,_v=sdk-c-3.2.0,securemode=2,signmethod=hmacsha256,"
            "lan=C,_ss=1,gw=0,ext=0|",
            "clientIda1B2c3D4e5F.lamp-01deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp2524608000000",
            "sha256",
            id="iotkit 3.2",
        ),
        pytest.param(
            "my device|securemode=3,_v=sdk-c-2.3.0,timestamp=2524608000000,signmethod=hmacsha1,lan=C,gw=0|",
            "clientIdmy devicedeviceNamelamp-01productKeya1B2c3D4e5Ftimestamp2524608000000",
            "sha1",
            id="iotkit 2.x",
        ),
        pytest.param(
            "12345|securemode=3|",
            "clientId12345deviceNamelamp-01productKeya1B2c3D4e5F",
            "md5",
            id="neither method nor timestamp",
        ),
        pytest.param(
            "设备|securemode=3,signmethod=hmacsha256,nonsense,=,|",
            "clientId设备deviceNamelamp-01productKeya1B2c3D4e5F",
            "sha256",
            id="items that are no pairs",
        ),
    ],
)
def test_every_sdk_gets_in_with_its_secret_and_only_with_it(
    client_id: str, signed_text: str, digest: str
) -> None:
    credentials = parse(client_id, USERNAME)
    password = by_hand(signed_text, digest)
    assert (credentials.kind, credentials.product_key, credentials.device_name) == (Kind.SECRET, PK, DN)
    assert password_matches(SECRET, credentials, password)
    assert password_matches(SECRET, credentials, password.upper())
    assert password_matches(SECRET, credentials, password.encode())
    assert not password_matches(SECRET + "x", credentials, password)
    assert not password_matches(SECRET, parse(client_id, "lamp-02&" + PK), password)
    assert not password_matches(SECRET, credentials, password[:-1])
    assert not password_matches(SECRET, credentials, "")


@pytest.mark.parametrize("auth_type", ["register", "regnwl"])
def test_registration_is_signed_with_the_product_secret_over_the_random(auth_type: str) -> None:
    credentials = parse(
        f"lamp-01.{PK}|random=8f3a,authType={auth_type},securemode=-2,signmethod=hmacsha256,instanceId=i1|",
        USERNAME,
    )
    assert credentials.kind is Kind(auth_type)
    password = by_hand("deviceNamelamp-01productKeya1B2c3D4e5Frandom8f3a", "sha256", "product-secret")
    assert password_matches("product-secret", credentials, password)
    assert not password_matches("other-secret", credentials, password)


def test_a_token_is_compared_as_it_is() -> None:
    credentials = parse("id7|authType=connwl,securemode=-2,_ss=1,ext=3,lan=C,_v=4|", USERNAME)
    assert credentials.kind is Kind.CONNWL
    assert password_matches("ToKeN~7", credentials, "ToKeN~7")
    assert not password_matches("ToKeN~7", credentials, "token~7")


@pytest.mark.parametrize("client_id", ["id|securemode=3|", "id|authType=connwl|"])
def test_without_a_secret_nobody_gets_in(client_id: str) -> None:
    credentials = parse(client_id, USERNAME)
    signed_with_nothing = by_hand("clientIdiddeviceNamelamp-01productKeya1B2c3D4e5F", "md5", "")
    assert not password_matches("", credentials, signed_with_nothing)
    assert not password_matches("", credentials, "")


@pytest.mark.parametrize(
    ("client_id", "username"),
    [
        ("id|securemode=3|", ""),
        ("id|securemode=3|", "lamp-01"),
        ("id|securemode=3|", "lamp-01&"),
        ("id|securemode=3|", f"&{PK}"),
        ("id|securemode=3|", f"lamp/01&{PK}"),
        ("id|securemode=3|", f"lamp+&{PK}"),
        ("id|securemode=3|", f"{USERNAME}\n"),
        ("id|securemode=3|", f"{USERNAME}&x"),
        ("id|securemode=3|", f"lamp-01&{'a' * 21}"),
        ("id|securemode=3|", f"{'d' * 33}&{PK}"),
        ("id|signmethod=hmacsha512|", USERNAME),
        ("id|authType=x509|", USERNAME),
        ("id|authType=register|", USERNAME),
        ("id|authType=register,random=|", USERNAME),
        ("i\0d|securemode=3|", USERNAME),
        ("\ud800|securemode=3|", USERNAME),
        ("id|timestamp=\udfff|", USERNAME),
        ("i" * 257 + "|securemode=3|", USERNAME),
        ("id|" + "a=b," * 300, USERNAME),
    ],
)
def test_what_has_not_the_shape_of_credentials_is_refused(client_id: str, username: str) -> None:
    with pytest.raises(BadCredentials):
        parse(client_id, username)


@pytest.mark.parametrize(
    ("body", "signed_text", "digest"),
    [
        pytest.param(
            {"version": "default", "clientId": "c1", "signmethod": "hmacsha1", "timestamp": "1501668289957"},
            "clientIdc1deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp1501668289957",
            "sha1",
            id="HTTPS",
        ),
        pytest.param(
            {"clientId": "c1", "signmethod": "hmacsha256"},
            "clientIdc1deviceNamelamp-01productKeya1B2c3D4e5F",
            "sha256",
            id="HTTPS, Link SDK",
        ),
        pytest.param(
            {"clientId": "c1", "timestamp": 1501668289957},
            "clientIdc1deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp1501668289957",
            "md5",
            id="HTTPS, number and default method",
        ),
        pytest.param(
            {"clientId": "c1", "seq": "10"},
            "clientIdc1deviceNamelamp-01productKeya1B2c3D4e5Fseq10",
            "md5",
            id="CoAP, symmetric",
        ),
    ],
)
def test_auth_bodies_are_signed_over_all_their_fields(
    body: dict[str, object], signed_text: str, digest: str
) -> None:
    expected = by_hand(signed_text, digest).upper()
    credentials, given_sign = parse_auth({**body, "productKey": PK, "deviceName": DN, "sign": expected})
    assert (credentials.product_key, credentials.device_name) == (PK, DN)
    assert credentials.client_id == "c1"
    assert password_matches(SECRET, credentials, given_sign)
    changed, _ = parse_auth({**body, "clientId": "c2", "productKey": PK, "deviceName": DN, "sign": expected})
    assert not password_matches(SECRET, changed, given_sign)


@pytest.mark.parametrize(("method", "digest"), [("hmacsha256", "sha256"), ("hmacsha1", "sha1")])
def test_http_registration_is_signed_over_the_random(method: str, digest: str) -> None:
    password = by_hand("deviceNamelamp-01productKeya1B2c3D4e5Frandom567", digest)
    form = {"productKey": PK, "deviceName": DN, "random": "567", "sign": password, "signMethod": method}
    credentials, given_sign = parse_registration(form)
    assert credentials.kind is Kind.REGISTER
    assert password_matches(SECRET, credentials, given_sign)


@pytest.mark.parametrize(
    "change",
    [
        {"sign": ""},
        {"clientId": ""},
        {"productKey": None},
        {"deviceName": ["lamp-01"]},
        {"timestamp": True},
        {"timestamp": 10**5000},
        {"signmethod": "none"},
        {"extra": "x" * 257},
        {f"k{n}": "v" for n in range(30)},
    ],
)
def test_an_auth_body_of_another_shape_is_refused(change: dict[str, object]) -> None:
    body = {"clientId": "c1", "productKey": PK, "deviceName": DN, "sign": "00"}
    with pytest.raises(BadCredentials):
        parse_auth({**body, **change})


@pytest.mark.parametrize(
    ("timestamp", "fresh"),
    [
        (None, True),
        ("1000000000", True),
        ("1000900000", True),
        ("1000900001", False),
        ("999099999", False),
        ("", False),
        ("now", False),
        ("9" * 5000, False),
    ],
)
def test_an_auth_timestamp_is_fresh_within_15_minutes(timestamp: str | None, fresh: bool) -> None:
    assert is_fresh(timestamp, now_ms=1_000_000_000) is fresh


def test_a_simulated_device_writes_what_the_sdks_write() -> None:
    login = mqtt_login(PK, DN, SECRET, timestamp="2524608000000", extra={"_ss": "1"})
    assert login.client_id == (
        "a1B2c3D4e5F.lamp-01|securemode=3,signmethod=hmacsha256,_ss=1,timestamp=2524608000000|"
    )
    assert login.username == USERNAME
    signed = "clientIda1B2c3D4e5F.lamp-01deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp2524608000000"
    assert login.password == by_hand(signed, "sha256")


def test_a_simulated_registration_is_understood() -> None:
    login = mqtt_registration(PK, DN, SECRET, random="42")
    assert login.password == by_hand("deviceNamelamp-01productKeya1B2c3D4e5Frandom42", "sha256")
    credentials = parse(login.client_id, login.username)
    assert credentials.kind is Kind.REGISTER
    assert password_matches(SECRET, credentials, login.password)


def test_a_simulated_http_device_writes_what_the_sdks_write() -> None:
    body = http_auth(PK, DN, SECRET, client_id="c1", method="hmacsha1", timestamp="1501668289957")
    signed = "clientIdc1deviceNamelamp-01productKeya1B2c3D4e5Ftimestamp1501668289957"
    assert body == {
        "version": "default",
        "clientId": "c1",
        "deviceName": DN,
        "productKey": PK,
        "timestamp": "1501668289957",
        "signmethod": "hmacsha1",
        "sign": by_hand(signed, "sha1"),
    }


def test_secrets_and_signatures_stay_out_of_the_log() -> None:
    login = mqtt_login(PK, DN, SECRET)
    assert login.password not in repr(login)
    assert "clientId" not in repr(parse(login.client_id, login.username)).replace("client_id", "")


def test_an_unknown_method_signs_nothing() -> None:
    with pytest.raises(BadCredentials):
        sign(SECRET, "text", "hmacsha512")


hostile = st.text(st.characters(), max_size=60)
shaped = st.lists(
    st.sampled_from(
        ["|", "=", ",", "authType", "register", "connwl", "random", "signmethod", "hmacsha1", "\ud800"]
    )
    | hostile,
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(hostile | shaped, st.just(USERNAME) | hostile, hostile | st.binary(max_size=60))
def test_any_text_is_credentials_that_do_not_match_or_a_refusal(
    client_id: str, username: str, password: str | bytes
) -> None:
    try:
        credentials = parse(client_id, username)
    except BadCredentials:
        return
    assert isinstance(credentials, Credentials)
    assert not password_matches(SECRET, credentials, password)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["productKey", "deviceName", "clientId", "sign", "signmethod", "random"]) | hostile,
        hostile | st.integers() | st.none() | st.booleans() | st.floats() | st.sampled_from([PK, DN]),
    )
)
def test_any_fields_are_credentials_that_do_not_match_or_a_refusal(fields: dict[str, object]) -> None:
    for read in (parse_auth, parse_registration):
        try:
            credentials, given_sign = read(fields)
        except BadCredentials:
            continue
        assert not password_matches(SECRET, credentials, given_sign)


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters="|\0", exclude_categories=["Cs"]), max_size=64),
    st.sampled_from(["hmacmd5", "hmacsha1", "hmacsha256"]),
    st.none() | st.integers(0, 10**13).map(str),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
)
def test_what_the_client_side_signs_the_server_side_believes(
    client_id: str, method: str, timestamp: str | None, secret: str
) -> None:
    login = mqtt_login(PK, DN, secret, client_id=client_id, method=method, timestamp=timestamp)
    credentials = parse(login.client_id, login.username)
    assert credentials.client_id == client_id
    assert password_matches(secret, credentials, login.password)

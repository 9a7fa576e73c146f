"""Addresses from which wrong logins of devices come too often."""

from otaplatform.core.throttling import FailureLimit

_limit = FailureLimit("device-auth", "OTA_HTTP_AUTH_FAILURES")
is_blocked, count_failure = _limit.is_blocked, _limit.count_failure

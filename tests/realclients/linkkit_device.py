"""A device made with Alibaba Cloud's Python SDK, as documented; runs in an environment of its own.

Arguments: MQTT port, ProductKey, DeviceName, DeviceSecret, present version, file to download to. It reports
its version, waits for a push without ever subscribing, downloads with the SDK's downloader, reports the new
version and ends. Exit code 0 says that the SDK was content at each step.
"""

import sys
import threading
from typing import Any

from linkkit import linkkit  # type: ignore[import-not-found,unused-ignore]

TIMEOUT = 60


def main(port: str, product_key: str, name: str, secret: str, version: str, path: str) -> int:
    device = linkkit.LinkKit(
        host_name="127.0.0.1", product_key=product_key, device_name=name, device_secret=secret
    )
    device.config_mqtt(port=int(port), secure="", endpoint="127.0.0.1")
    connected, pushed = threading.Event(), threading.Event()
    pushes: list[tuple[Any, ...]] = []

    def on_connect(_session_flag: Any, code: int, _data: Any) -> None:
        if code == 0:
            connected.set()

    def on_push(*push: Any) -> None:
        pushes.append(push)
        pushed.set()

    device.on_connect = on_connect
    device.on_ota_message_arrived = on_push
    device.connect_async()
    if not connected.wait(TIMEOUT):
        return 2
    # The SDK compares paho's answer with 0 and calls every report failed; it is sent all the same.
    device.ota_report_version("", version)
    if not pushed.wait(TIMEOUT):
        return 3
    _kind, target, _size, url, sign_method, sign, _module, _extra = pushes[0]
    if device.download_ota_firmware(url, path, sign_method, sign) != linkkit.LinkKit.ErrorCode.SUCCESS:
        return 4
    device.disconnect()
    connected.clear()
    device.connect_async()  # as after a restart
    if not connected.wait(TIMEOUT):
        return 5
    device.ota_report_version("", target)
    sys.stdin.readline()  # the test has seen what it waited for
    device.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

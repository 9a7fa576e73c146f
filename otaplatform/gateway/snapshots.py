"""Presence snapshots: who the broker says is connected, against who we believe is."""

from datetime import UTC, datetime

from campaigns.reports import Down, Up
from devices import sql
from devices.brokers.contract import PresenceSnapshot
from devices.models import Channel, DevicePresence


class Collector:
    """Puts the parts of a snapshot together. An unfinished one is forgotten when another begins."""

    def __init__(self) -> None:
        self._sync = ""
        self._parts: dict[int, PresenceSnapshot] = {}

    def add(self, part: PresenceSnapshot) -> PresenceSnapshot | None:
        """The whole snapshot, with everybody in it, once this was its last part."""
        if part.sync != self._sync:
            self._sync, self._parts = part.sync, {}
        self._parts[part.part] = part
        if len(self._parts) < part.parts:
            return None
        everybody = tuple(row for each in self._parts.values() for row in each.connected)
        self._sync, self._parts = "", {}
        return PresenceSnapshot(part.epoch, part.sync, 0, 1, part.at, everybody)


def differences(snapshot: PresenceSnapshot) -> list[Up | Down]:
    """The events that turn the stored presence into the snapshot, those that went before those that came."""
    at = datetime.fromtimestamp(snapshot.at / 1000, UTC)
    epoch = snapshot.epoch
    connected = {connection_id for _, _, connection_id in snapshot.connected}
    rows = DevicePresence.objects.filter(is_up=True, channel=Channel.MQTT)
    stored = rows.values_list("device_id", "connection_id", "epoch")
    downs = [
        Down(device, connection_id, of_epoch, at)
        for device, connection_id, of_epoch in stored.iterator()
        if of_epoch != epoch or connection_id not in connected
    ]
    known = set(rows.filter(epoch=epoch).values_list("connection_id", flat=True))
    came = [row for row in snapshot.connected if row[2] not in known]
    if not came:
        return [*downs]
    source, parameters = sql.rows("v", {"product_key": "text", "name": "text", "connection": "text"}, came)
    found = sql.execute(
        f"SELECT d.id, v.connection FROM {source} "  # noqa: S608  (names are ours)
        "JOIN devices_product p ON p.product_key = v.product_key "
        "JOIN devices_device d ON d.product_id = p.id AND d.name = v.name AND d.removed_at IS NULL",
        parameters,
    )
    return [*downs, *(Up(device, connection_id, epoch, at) for device, connection_id in found)]

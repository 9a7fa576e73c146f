"""Examples of the schema: {operation: {"request": …, "response": …}}; a test holds them against it."""

from typing import Any

_KEY = "a1B2c3D4e5F"
_AT = "2030-01-31T08:00:00Z"
_COUNTS = {
    "scheduled": 0,
    "queued": 40,
    "notified": 3,
    "in_progress": 7,
    "succeeded": 949,
    "failed": 1,
    "canceled": 0,
}
_PRODUCT = {
    "product_key": _KEY,
    "name": "water_meter",
    "description": "Meters of the north",
    "secure_update": False,
    "created_at": _AT,
}
_DEVICE = {
    "product_key": _KEY,
    "device_name": "meter-0001",
    "status": "online",
    "channel": "mqtt",
    "versions": {"default": "1.0.0"},
    "activated_at": _AT,
    "connected_at": _AT,
    "created_at": _AT,
}
_FIRMWARE = {
    "id": 7,
    "name": "meter_app",
    "version": "1.1.0",
    "product": _KEY,
    "module": "default",
    "source_version": "",
    "sign_method": "SHA256",
    "status": "verified",
    "description": "",
    "file_name": "meter.bin",
    "size": 524288,
    "md5": "5d41402abc4b2a76b9719d911017c592",
    "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "created_by": "build",
    "created_at": _AT,
}
_CAMPAIGN = {
    "id": 12,
    "kind": "upgrade",
    "status": "in_progress",
    "is_paused": False,
    "product": _KEY,
    "firmware": 7,
    "version": "1.1.0",
    "policy": "static",
    "region": "all",
    "source_versions": ["1.0.0"],
    "schedule_at": None,
    "retry_interval_minutes": 10,
    "max_retries": 2,
    "timeout_minutes": 60,
    "max_per_minute": 1000,
    "busy": "leave",
    "counts": _COUNTS,
    "matching_stopped_at": None,
    "created_by": "build",
    "created_at": _AT,
    "started_at": _AT,
    "finished_at": None,
}
_TASK = {
    "id": 3456,
    "campaign": 12,
    "device_name": "meter-0001",
    "status": "queued",
    "progress": 0,
    "reason": "",
    "detail": "",
    "attempt": 1,
    "max_attempts": 3,
    "due_at": _AT,
    "pushed_at": None,
    "from_version": "1.0.0",
    "to_version": "1.1.0",
    "why": "Waiting for the device to come online since 08:02.",
    "why_code": "offline",
    "is_late": False,
    "is_reverted": False,
    "created_at": _AT,
    "changed_at": _AT,
}
_LAUNCH = {
    "firmware": 7,
    "policy": "static",
    "region": "all",
    "source_versions": ["1.0.0"],
    "retry_interval_minutes": 10,
    "max_retries": 2,
    "max_per_minute": 1000,
}


def _page(row: dict[str, Any]) -> dict[str, Any]:
    return {"results": [row], "next": None, "previous": None}


EXAMPLES: dict[str, dict[str, Any]] = {
    "product_list": {"response": _page(_PRODUCT)},
    "product_create": {
        "request": {"name": "water_meter", "description": "Meters of the north"},
        "response": {**_PRODUCT, "product_secret": "9kFv3SbA1wTq0ZrL"},
    },
    "product_retrieve": {"response": _PRODUCT},
    "product_partial_update": {"request": {"description": "Meters of the south"}, "response": _PRODUCT},
    "product_versions": {
        "response": {
            "module": "default",
            "total": 1000,
            "results": [
                {"version": "1.1.0", "devices": 949, "percent": 94.9},
                {"version": "1.0.0", "devices": 51, "percent": 5.1},
            ],
            "others": 0,
        }
    },
    "device_list": {"response": _page(_DEVICE)},
    "device_create": {
        "request": {"device_name": "meter-0001"},
        "response": {
            "product_key": _KEY,
            "device_name": "meter-0001",
            "device_secret": "Qm1wb3J0YW50U2VjcmV0T2ZBRGV2aWNl",
            "created_at": _AT,
        },
    },
    "device_retrieve": {
        "response": {**_DEVICE, "why": "No update is planned for this device.", "why_code": "idle"}
    },
    "firmware_list": {"response": _page(_FIRMWARE)},
    "firmware_create": {"response": _FIRMWARE},
    "firmware_retrieve": {"response": _FIRMWARE},
    "firmware_validate": {
        "request": {"device_names": ["meter-0001"], "timeout_minutes": 30},
        "response": {**_CAMPAIGN, "kind": "verify", "region": "directional"},
    },
    "campaign_list": {"response": _page(_CAMPAIGN)},
    "campaign_create": {"request": _LAUNCH, "response": _CAMPAIGN},
    "campaign_preview": {
        "request": _LAUNCH,
        "response": {
            "matching": 1000,
            "online": 960,
            "not_activated": 12,
            "on_target": 30,
            "on_newer": 0,
            "busy": 2,
            "busy_waiting": 1,
            "busy_by_campaign": [{"campaign": 11, "devices": 2}],
            "needs_accept_unproven": False,
            "excluded_count": 0,
            "excluded": [],
        },
    },
    "campaign_retrieve": {"response": _CAMPAIGN},
    "campaign_tasks": {"response": _page(_TASK)},
    "task_retrieve": {"response": _TASK},
}

"""The three roles, kept as Django groups."""

from typing import Any

from django.apps.registry import Apps
from django.apps.registry import apps as global_apps

VIEWER, OPERATOR, ADMINISTRATOR = "Viewer", "Operator", "Administrator"

# app label -> models whose rows each role may change; everybody in a role may look at all of these.
_LOOK: dict[str, tuple[str, ...]] = {
    "devices": ("product", "device"),
    "firmware": ("firmware",),
    "campaigns": ("campaign", "updatetask", "taskevent"),
    "accounts": ("auditentry",),
}
_OPERATE: dict[str, tuple[str, ...]] = {
    "firmware": ("firmware",),
    "campaigns": ("campaign", "updatetask"),
    "devices": ("device",),
}
_ADMINISTER: dict[str, tuple[str, ...]] = {
    "devices": ("product", "device"),
    "accounts": ("user", "logincounter"),
    "api": ("webhook", "webhookdelivery"),
}


def _codenames(models: dict[str, tuple[str, ...]], *verbs: str) -> set[tuple[str, str]]:
    return {(app, f"{verb}_{model}") for app, names in models.items() for model in names for verb in verbs}


_WRITE = ("add", "change", "delete")
ROLES: dict[str, set[tuple[str, str]]] = {VIEWER: _codenames(_LOOK, "view")}
ROLES[OPERATOR] = ROLES[VIEWER] | _codenames(_OPERATE, *_WRITE)
ROLES[ADMINISTRATOR] = ROLES[OPERATOR] | _codenames(_ADMINISTER, "view", *_WRITE)


def ensure_roles(using: str = "default", apps: Apps = global_apps, **kwargs: Any) -> None:
    """After each migrate: the three groups exist and have at least their permissions."""
    try:
        group_model = apps.get_model("auth", "Group")
        permission_model = apps.get_model("auth", "Permission")
    except LookupError:
        return
    permissions = {
        (app, code): pk
        for pk, app, code in permission_model.objects.using(using).values_list(
            "pk", "content_type__app_label", "codename"
        )
    }
    for name, wanted in ROLES.items():
        group, _ = group_model.objects.using(using).get_or_create(name=name)
        group.permissions.add(*(permissions[key] for key in wanted if key in permissions))

"""What simulated devices remember over a restart of the simulator: the versions they run."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

Versions = dict[str, str]  # by module


class VersionStore:
    """A small JSON file: {"ProductKey/DeviceName": {module: version}}. Without a path, only memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known = _load(path) if path is not None else {}
        self._is_saved = True

    def get(self, product_key: str, device_name: str) -> Versions:
        return dict(self._known.get(f"{product_key}/{device_name}", {}))

    def put(self, product_key: str, device_name: str, versions: Versions) -> None:
        self._known[f"{product_key}/{device_name}"] = dict(versions)
        self._is_saved = False

    def save(self) -> None:
        """Write the file if something has changed. Raises OSError."""
        if self._is_saved or self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(self._known, indent=0, sort_keys=True))
        draft.replace(self._path)
        self._is_saved = True


def _load(path: Path) -> dict[str, Versions]:
    try:
        known = json.loads(path.read_text())
        return {
            device: {str(module): str(version) for module, version in versions.items()}
            for device, versions in known.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        logger.warning("%s cannot be read and is begun anew: %s", path, error)
        return {}

"""The record of enrolled pods on disk: what a restarted daemon enrols again."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Records:
    """One small file per pod under a directory of the daemon; written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, pod: str, record: dict[str, Any]) -> None:
        """Write the record of `namespace/name`."""
        path = self._path(pod)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(draft, path)

    def remove(self, pod: str) -> None:
        """Forget `namespace/name`; idempotent."""
        self._path(pod).unlink(missing_ok=True)

    def load(self) -> Iterator[dict[str, Any]]:
        """Yield every readable record; one that is not is removed, since it can name no pod."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                record = json.loads(path.read_text())
                if not isinstance(record, dict) or not isinstance(record.get("pod"), str):
                    raise ValueError("not a record")
            except (OSError, ValueError):
                path.unlink(missing_ok=True)
                continue
            yield record

    def _path(self, pod: str) -> Path:
        return self._directory / (pod.replace("/", "_") + ".json")

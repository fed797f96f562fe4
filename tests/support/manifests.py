"""The Kubernetes manifests of vagrant/, as tests read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "vagrant" / "manifests"
Object = dict[str, Any]


def files() -> list[Path]:
    """Return the files that hold objects of the API."""
    return sorted(path for path in MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml")


def kustomizations() -> list[Path]:
    """Return the files that say what belongs together."""
    return sorted(MANIFESTS.rglob("kustomization.yaml"))


def load(path: Path) -> list[Object]:
    """Return the documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def objects() -> Iterator[Object]:
    """Yield every object of every file."""
    for path in files():
        yield from load(path)


def named(kind: str, name: str) -> Object:
    """Return the one object of this kind and name."""
    (found,) = (each for each in objects() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def daemon_pod() -> Object:
    """Return the pod of the DaemonSet."""
    pod: Object = named("DaemonSet", "zproxy")["spec"]["template"]["spec"]
    return pod


def daemon_container() -> Object:
    """Return its only container."""
    (container,) = daemon_pod()["containers"]
    return dict(container)

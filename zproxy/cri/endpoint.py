"""Where a container runtime listens: found by its usual sockets, or as the operator says."""

import os
import stat
from pathlib import Path
from typing import Final

from zproxy.errors import ConfigError

USUAL: Final = (
    Path("/run/containerd/containerd.sock"),
    Path("/run/crio/crio.sock"),
    Path("/run/k3s/containerd/containerd.sock"),
)
"""Of containerd, CRI-O and k3s, in the order in which they are looked for."""
NONE: Final = "none"
"""What an operator says who wants no runtime to be asked."""
_SCHEME: Final = "unix://"


def find(wish: str | None, usual: tuple[Path, ...] = USUAL) -> Path | None:
    """Return the socket of the runtime; None when there is none, or none is wanted.

    `wish` is a path, with or without unix:// as kubelet has it, NONE, or None: then the first of `usual` that
    is there. Raise ConfigError for another kind of address.
    """
    if wish is None:
        return next((path for path in usual if _is_socket(path)), None)
    if wish == NONE:
        return None
    path = Path(wish.removeprefix(_SCHEME))
    if not path.is_absolute():
        raise ConfigError(
            f"--cri-endpoint {wish!r} is no socket of a container runtime: give an absolute path or unix://PATH"
        )
    return path


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False

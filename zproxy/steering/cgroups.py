"""The two cgroups that hooks hang on: the root of the v2 hierarchy and the daemon's own."""

from pathlib import Path
from typing import Final

from zproxy.errors import ConfigError, RequirementError
from zproxy.steering.mounts import CGROUP2_TYPE, MOUNTS, is_on, mounts_of

ROOT_ID: Final = 1
"""Inode, and so cgroup id, of the hierarchy's true root."""


def root_cgroup(table: Path = MOUNTS) -> Path:
    """Return where the root of the cgroup v2 hierarchy is mounted; raise RequirementError when nowhere.

    Inside a cgroup namespace the mount may show a subtree only. Hooks there would see a few processes and
    miss the pods, so such a mount does not count.
    """
    mounted = [Path(mount.path) for mount in mounts_of(CGROUP2_TYPE, table)]
    for path in mounted:
        if path.is_dir() and path.stat().st_ino == ROOT_ID:
            return path
    if mounted:
        raise RequirementError(
            f"the cgroup v2 mount {mounted[0]} is a container's own subtree and not the machine's root; run "
            "in the host's cgroup namespace, or mount the host's /sys/fs/cgroup. Where the node itself is a "
            "container, as in kind, say so: zproxy run --cgroup-root PATH"
        )
    raise RequirementError(
        "cgroup v2 is not mounted here; mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`, "
        "or boot with systemd.unified_cgroup_hierarchy=1"
    )


def given_root(path: Path) -> Path:
    """Return the cgroup that an operator named as the root of the node; raise ConfigError when it is none.

    A node that is itself a container has only a part of the machine's hierarchy, and all its pods are in it.
    """
    if not is_on(str(path), CGROUP2_TYPE) or not path.is_dir():
        raise ConfigError(f"--cgroup-root {path} is no directory of the cgroup v2 hierarchy")
    return path


def own_cgroup(root: Path, membership: Path = Path("/proc/self/cgroup")) -> Path:
    """Return the v2 cgroup that this process is in; its sockets belong to it and stay there."""
    for line in membership.read_text().splitlines():
        if line.startswith("0::/"):
            path = root / line[4:]
            if path.is_dir():
                return path
            raise RequirementError(
                f"this process is in cgroup {line[3:]}, which is not below {root}; run zproxy in the host's "
                "cgroup namespace"
            )
    raise RequirementError("this process is in no cgroup v2; is the hierarchy mounted?")

"""Files that a pod of the lab has in place of the machine's: /etc/resolv.conf, as kubelet writes it.

They stand in /etc/netns/NAME, where `ip netns exec` looks for them: it gives the command a mount namespace
of its own and binds each over its namesake in /etc (ip-netns(8)). `enter` does the same.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from zproxy.lab.layout import CLUSTER_DNS, CLUSTER_DOMAIN, Layout, PodSite
from zproxy.net.netns import NAMED

ROOT: Final = Path("/etc/netns")
"""Fixed in iproute2."""
CLONE_NEWNS: Final = 0x00020000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)


def resolv_conf(pod: PodSite) -> str:
    """Return what kubelet writes for a pod with the policy ClusterFirst."""
    service_domain = f"svc.{CLUSTER_DOMAIN}"
    return (
        f"search {pod.namespace}.{service_domain} {service_domain} {CLUSTER_DOMAIN}\n"
        f"nameserver {CLUSTER_DNS}\n"
        "options ndots:5\n"
    )


def write(layout: Layout) -> None:
    """Give each pod its files."""
    for pod in layout.pods:
        directory = ROOT / pod.netns
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(resolv_conf(pod))


def are_there(layout: Layout) -> bool:
    """Whether each pod has its files."""
    return all((ROOT / pod.netns / "resolv.conf").exists() for pod in layout.pods)


def remove(layout: Layout) -> list[str]:
    """Take the files away, and the directories that are empty then; return what went."""
    removed = []
    for pod in layout.pods:
        path = ROOT / pod.netns / "resolv.conf"
        if path.exists():
            path.unlink()
            removed.append(str(path))
        for directory in (path.parent, ROOT):
            if directory.is_dir() and not os.listdir(directory):
                directory.rmdir()
    return removed


def of(netns_path: str) -> list[Path]:
    """Return the files of a namespace that was made by name; none where it was not, or has none."""
    path = Path(netns_path)
    directory = ROOT / path.name
    if path.parent.resolve() != NAMED.resolve() or not directory.is_dir():
        return []
    return sorted(directory.iterdir())


def enter(netns_path: str) -> None:
    """Give this process a mount namespace of its own, in which it sees the files of a network namespace.

    For a process that has one thread and becomes another program: there is NO way back. Raise OSError when
    refused; a file without a namesake in /etc is left out, as `ip netns exec` does.
    """
    files = of(netns_path)
    if not files:
        return
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount("", "/", MS_SLAVE | MS_REC)
    for path in files:
        if Path("/etc", path.name).exists():
            _mount(str(path), f"/etc/{path.name}", MS_BIND)


def _mount(source: str, target: str, flags: int) -> None:
    _checked(_libc.mount(source.encode(), target.encode(), b"none", flags, None), f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")

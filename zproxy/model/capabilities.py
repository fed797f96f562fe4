"""The capabilities(7) that the daemon cannot do without, and for what.

The list is exact: the daemon works with these alone, and without any one of them something that a user was
promised does not. The DaemonSet in vagrant/manifests/ grants them and drops all others.
"""

from typing import Final, NamedTuple


class Capability(NamedTuple):
    """One capability."""

    name: str
    """As `capsh` and capabilities(7) write it, in capitals; Kubernetes leaves CAP_ out."""
    bit: int
    """Its number in include/uapi/linux/capability.h, which never changes."""
    purpose: str
    """What fails without it, as it completes "it is needed to ..."."""


NET_ADMIN: Final = Capability(
    "CAP_NET_ADMIN",
    12,
    "set routes, rules and sysctls in pods, attach programs to their interfaces and bind to "
    "addresses of clients",
)
SYS_PTRACE: Final = Capability(
    "CAP_SYS_PTRACE", 19, "look at processes of other users: their namespaces, files and sockets in /proc"
)
SYS_ADMIN: Final = Capability(
    "CAP_SYS_ADMIN", 21, "enter the network namespaces of pods (setns) and load and attach eBPF programs"
)

NEEDED: Final = (NET_ADMIN, SYS_PTRACE, SYS_ADMIN)


def missing(effective: int) -> tuple[Capability, ...]:
    """Return what is needed and not in a set, given as a bit mask like CapEff of /proc/PID/status."""
    return tuple(each for each in NEEDED if not effective >> each.bit & 1)


def complaint(lacking: tuple[Capability, ...]) -> str:
    """Say in one sentence what is lacking, for what, and the remedy; `lacking` has one element at least."""
    said = "; ".join(f"{each.name} is missing: it is needed to {each.purpose}" for each in lacking)
    return (
        f"{said}; run zproxy as root with these capabilities: "
        f"{', '.join(each.name for each in NEEDED)} (in Kubernetes, securityContext.capabilities.add)"
    )

"""What enrolment could leave in a pod's namespace, as the distribution's own tools see it."""

import subprocess
from pathlib import Path

from tests.support.netns import Namespace

SYSCTLS = (
    "ipv4/tcp_fwmark_accept",
    "ipv4/fwmark_reflect",
    "ipv6/fwmark_reflect",
    "ipv4/tcp_tw_reuse",
)
LISTEN = "0A"


def state_of(pod: Namespace) -> list[str]:
    """Return rules, routes of every table, sysctls and listening ports, a line each."""
    return [*rules(pod), *routes(pod, "all"), *sysctls(pod), f"listening: {listening(pod)}"]


def rules(pod: Namespace) -> list[str]:
    """Return the rules of both families."""
    return [f"{family} {line}" for family in ("-4", "-6") for line in _ip(pod, family, "rule", "show")]


def routes(pod: Namespace, table: str) -> list[str]:
    """Return the routes of one table, of both families."""
    return [
        f"{family} {line}"
        for family in ("-4", "-6")
        for line in sorted(_ip(pod, family, "route", "show", "table", table))
    ]


def sysctls(pod: Namespace) -> list[str]:
    """Return what enrolment may change, with its value."""

    def read() -> list[str]:
        return [f"{name} = {Path('/proc/sys/net', name).read_text().strip()}" for name in SYSCTLS]

    return pod.run(read)


def listening(pod: Namespace) -> list[int]:
    """Return the TCP ports that somebody listens on."""

    def read() -> list[int]:
        lines = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        ]
        return sorted(int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == LISTEN)

    return pod.run(read)


def _ip(pod: Namespace, *command: str) -> list[str]:
    """A table that was never used does not exist, which iproute2 takes for an error: it has no routes."""
    done = subprocess.run(["ip", "-n", pod.name, *command], capture_output=True, text=True, timeout=30)
    assert not done.returncode or "FIB table does not exist" in done.stderr, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]

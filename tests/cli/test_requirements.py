"""Verdicts on a machine, from facts alone."""

from typing import Any

import pytest
from zproxy_cli.requirements import FAILED, NOTE, OK, WARNING, judge

from zproxy.model.capabilities import NEEDED, SYS_PTRACE
from zproxy.steering.probe import (
    Answer,
    Cgroup,
    Facts,
    Hook,
)

ALL = sum(1 << each.bit for each in NEEDED)
TOOLS = {"bpftool": "/usr/sbin/bpftool", "curl": "/usr/bin/curl"}
GOOD = Facts(
    system="Linux",
    release="6.12.41+deb13-amd64",
    capabilities=ALL,
    bpf=Answer(True, "bpf(2) answers"),
    jit="1",
    cgroup=Cgroup("/sys/fs/cgroup", True),
    has_bpffs=True,
    bcc=Answer(True, "0.31.0"),
    has_headers=True,
    tools=TOOLS,
    tls=Answer(True, "OpenSSL 3.5"),
    open_files=(1024, 1 << 20),
    congestion_control="cubic",
    hooks=(),
    leftovers=(),
    has_named_netns=True,
    source_ports=(32768, 60999),
)
LB = Hook("cgroup_inet4_connect", 12, "cil_sock4_conne", False)


def test_a_good_machine_has_nothing_to_mend() -> None:
    checks = judge(GOOD)
    assert {check.status for check in checks} == {OK}
    assert not any(check.remedy for check in checks)
    assert len({check.check for check in checks}) == len(checks)


VERDICTS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("linux", {"system": "Darwin"}, FAILED, "Darwin", "run zproxy on Linux"),
    ("kernel", {"release": "5.14.0-570.el9"}, FAILED, "older than 5.15", "5.15 or newer"),
    ("kernel", {"release": "5.15.0"}, OK, "5.15.0", ""),
    ("kernel", {"release": "unknown"}, FAILED, "unknown", "5.15 or newer"),
    ("tcx links", {"release": "6.1.0-40-amd64"}, FAILED, "6.1.0-40-amd64 has none", "6.6 or newer"),
    ("tcx links", {"release": "6.6.0"}, OK, "6.6", ""),
    (
        "capabilities",
        {"capabilities": 0},
        FAILED,
        "CAP_SYS_ADMIN is missing: it is needed to enter",
        "run as root",
    ),
    (
        "capabilities",
        {"capabilities": ALL & ~(1 << SYS_PTRACE.bit)},
        FAILED,
        "CAP_SYS_PTRACE is missing",
        "run as root",
    ),
    ("bpf syscall", {"bpf": Answer(False, "Operation not permitted")}, FAILED, "not permitted", "seccomp"),
    ("bpf jit", {"jit": "0"}, WARNING, "interpreted", "sysctl -w net.core.bpf_jit_enable=1"),
    ("bpf jit", {"jit": ""}, OK, "on", ""),
    ("cgroup v2", {"cgroup": None}, FAILED, "not mounted", "mount -t cgroup2"),
    (
        "cgroup v2",
        {"cgroup": Cgroup("/sys/fs/cgroup", False)},
        FAILED,
        "only a part",
        "host's cgroup namespace",
    ),
    ("other cgroup hooks", {"hooks": (LB,)}, NOTE, "cil_sock4_conne (program 12)", "attached after zproxy"),
    (
        "other cgroup hooks",
        {"hooks": (LB, LB._replace(name="", is_exclusive=True))},
        FAILED,
        "unnamed (program 12) at cgroup_inet4_connect, attached exclusively",
        "BPF_F_ALLOW_MULTI",
    ),
    ("bpffs", {"has_bpffs": False}, NOTE, "not mounted", "zproxy run mounts it"),
    ("bcc", {"bcc": Answer(False, "No module named 'bcc'")}, FAILED, "No module", "python3-bpfcc"),
    ("kernel uapi headers", {"has_headers": False}, FAILED, "bpf.h", "linux-libc-dev"),
    ("tls engine", {"tls": Answer(False, "no TLS 1.3")}, FAILED, "no TLS 1.3", "make install"),
    ("bpftool", {"tools": {"bpftool": None}}, WARNING, "not on PATH", "apt-get install bpftool"),
    ("ss", {"tools": {"ss": None}}, WARNING, "not on PATH", "apt-get install iproute2"),
    ("open files", {"open_files": (1024, 4096)}, WARNING, "4096 bound", "LimitNOFILE"),
    ("open files", {"open_files": (1024, -1)}, OK, "no limit", ""),
    ("congestion control", {"congestion_control": "bbr"}, NOTE, "bbr paces", "cubic"),
    ("congestion control", {"congestion_control": ""}, OK, "unknown", ""),
    ("named namespaces", {"has_named_netns": False}, NOTE, "no /run/netns", "ip netns add"),
    ("source ports", {}, OK, "28232 outbound connections open at once for each pod (32768-60999)", ""),
    ("source ports", {"source_ports": (60000, 60999)}, NOTE, "1000 outbound", "wider"),
    ("source ports", {"source_ports": (0, 0)}, NOTE, "unknown how many", "ip_local_port_range"),
    ("leftover pins", {"leftovers": ("a", "b")}, WARNING, "no daemon runs for a, b", "adopts them"),
]


@pytest.mark.parametrize(("name", "change", "status", "detail", "remedy"), VERDICTS)
def test_each_fact_has_its_verdict_and_remedy(
    name: str, change: dict[str, Any], status: str, detail: str, remedy: str
) -> None:
    (check,) = (check for check in judge(GOOD._replace(**change)) if check.check == name)
    assert check.status == status
    assert detail in check.detail
    assert remedy in check.remedy
    assert bool(check.remedy) == (status != OK)

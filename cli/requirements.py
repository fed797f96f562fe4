"""What zproxy needs of a machine: facts in, verdicts out. Facts come from steering/probe.py."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from zproxy.model.capabilities import NEEDED, missing
from zproxy.steering.probe import Facts

OK: Final = "ok"
NOTE: Final = "note"
"""Worth knowing; nothing to do."""
WARNING: Final = "warning"
"""Something works less well, or not at all, but the mesh does."""
FAILED: Final = "failed"
"""Without it no pod can be enrolled."""

OLDEST_KERNEL: Final = (5, 15)
"""Netns cookies in every hook, links on cgroups and namespaces, sk_storage from sock_ops."""
TCX_KERNEL: Final = (6, 6)
"""Links on tc hooks."""
FEW_FILES: Final = 65_536
"""Below this the number of connections is bounded by descriptors: two for each, and some for each pod."""
FEW_PORTS: Final = 10_000
"""Below this a busy pod may run out; Linux gives 28232."""
_PACKAGES: Final = {
    "bpftool": "bpftool",
    "ip": "iproute2",
    "ss": "iproute2",
    "tcpdump": "tcpdump",
    "curl": "curl",
}


class Check(NamedTuple):
    """One requirement and its verdict."""

    check: str
    status: str
    detail: str
    remedy: str = ""


def judge(facts: Facts) -> list[Check]:
    """Return a verdict on every requirement, in the order in which they build on each other."""
    return [
        system(facts),
        kernel(facts),
        tcx(facts),
        capabilities(facts),
        bpf(facts),
        jit(facts),
        cgroup(facts),
        hooks(facts),
        bpffs(facts),
        bcc(facts),
        headers(facts),
        tls(facts),
        *tools(facts),
        open_files(facts),
        congestion_control(facts),
        named_netns(facts),
        source_ports(facts),
        leftovers(facts),
    ]


def system(facts: Facts) -> Check:
    """Linux, and nothing else."""
    status = OK if facts.system == "Linux" else FAILED
    return Check(
        "linux", status, facts.system, "" if status == OK else "run zproxy on Linux, in a VM for instance"
    )


def kernel(facts: Facts) -> Check:
    """The release with every hook that is attached."""
    if _release(facts) >= OLDEST_KERNEL:
        return Check("kernel", OK, facts.release)
    return Check("kernel", FAILED, f"{facts.release} is older than 5.15", "install a kernel of 5.15 or newer")


def tcx(facts: Facts) -> Check:
    """Links on tc hooks, which end with their owner and never disturb other filters."""
    if _release(facts) >= TCX_KERNEL:
        return Check("tcx links", OK, "6.6 or newer")
    remedy = "install a kernel of 6.6 or newer"
    return Check("tcx links", FAILED, f"{facts.release} has none, and no pod can be enrolled without", remedy)


def capabilities(facts: Facts) -> Check:
    """Root, or what of root is used."""
    lacking = missing(facts.capabilities)
    if not lacking:
        return Check("capabilities", OK, ", ".join(each.name for each in NEEDED))
    detail = "; ".join(f"{each.name} is missing: it is needed to {each.purpose}" for each in lacking)
    return Check("capabilities", FAILED, detail, "run as root, for instance with sudo")


def bpf(facts: Facts) -> Check:
    """The system call itself: seccomp, a security module or the kernel's build may refuse it."""
    if facts.bpf.is_good:
        return Check("bpf syscall", OK, facts.bpf.text)
    remedy = "run as root outside a container, or let the container use bpf(2) (seccomp profile)"
    return Check("bpf syscall", FAILED, facts.bpf.text, remedy)


def jit(facts: Facts) -> Check:
    """Whether programs are compiled to machine code."""
    if facts.jit != "0":
        return Check("bpf jit", OK, "on")
    return Check("bpf jit", WARNING, "off: programs are interpreted", "sysctl -w net.core.bpf_jit_enable=1")


def cgroup(facts: Facts) -> Check:
    """The whole v2 hierarchy: programs at its root see every process of the machine."""
    found = facts.cgroup
    if found is None:
        remedy = (
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1"
        )
        return Check("cgroup v2", FAILED, "not mounted", remedy)
    if not found.is_whole:
        remedy = "give the container the host's cgroup namespace and its /sys/fs/cgroup"
        return Check("cgroup v2", FAILED, f"{found.path} shows only a part of the hierarchy", remedy)
    return Check("cgroup v2", OK, found.path)


def hooks(facts: Facts) -> Check:
    """Programs of others at the cgroup root: a socket load balancer of a CNI, most likely."""
    if not facts.hooks:
        return Check("other cgroup hooks", OK, "none")
    named = ", ".join(
        f"{hook.name or 'unnamed'} (program {hook.prog_id}) at {hook.hook}" for hook in facts.hooks
    )
    if any(hook.is_exclusive for hook in facts.hooks):
        remedy = "its owner must attach it with BPF_F_ALLOW_MULTI or by link"
        return Check("other cgroup hooks", FAILED, f"{named}, attached exclusively", remedy)
    remedy = (
        "one that rewrites service addresses hides them from pods without a cgroup of their own, unless it "
        "is attached after zproxy"
    )
    return Check("other cgroup hooks", NOTE, named, remedy)


def bpffs(facts: Facts) -> Check:
    """Where maps, programs and links outlive the daemon."""
    if facts.has_bpffs:
        return Check("bpffs", OK, "/sys/fs/bpf")
    return Check("bpffs", NOTE, "not mounted at /sys/fs/bpf", "zproxy run mounts it")


def bcc(facts: Facts) -> Check:
    """The compiler of the programs, bound to the distribution's own interpreter."""
    if facts.bcc.is_good:
        return Check("bcc", OK, facts.bcc.text)
    remedy = "apt-get install python3-bpfcc; make the venv by /usr/bin/python3 -m venv --system-site-packages"
    return Check("bcc", FAILED, facts.bcc.text, remedy)


def headers(facts: Facts) -> Check:
    """The kernel's headers for user space; those of the running kernel are not needed."""
    if facts.has_headers:
        return Check("kernel uapi headers", OK, "/usr/include/linux")
    return Check(
        "kernel uapi headers", FAILED, "no /usr/include/linux/bpf.h", "apt-get install linux-libc-dev"
    )


def tls(facts: Facts) -> Check:
    """Which TLS engine its self-test chose."""
    if facts.tls.is_good:
        return Check("tls engine", OK, facts.tls.text)
    return Check("tls engine", FAILED, facts.tls.text, "install zproxy's dependencies again: make install")


def tools(facts: Facts) -> Iterator[Check]:
    """Programs that the lab and the proofs run; the daemon needs none of them."""
    for tool, path in facts.tools.items():
        if path:
            yield Check(tool, OK, path)
        else:
            detail = "not on PATH: `zproxy lab` and `zproxy prove` need it"
            yield Check(tool, WARNING, detail, f"apt-get install {_PACKAGES.get(tool, tool)}")


def open_files(facts: Facts) -> Check:
    """Descriptors that the daemon may have; it raises its soft limit to the hard one."""
    soft, hard = facts.open_files
    if hard >= FEW_FILES or hard < 0:
        return Check("open files", OK, f"{soft} now, {hard if hard >= 0 else 'no'} limit")
    remedy = f"raise the hard limit to {FEW_FILES} or more (ulimit -Hn, LimitNOFILE=)"
    return Check("open files", WARNING, f"{hard} bound the connections of all pods", remedy)


def congestion_control(facts: Facts) -> Check:
    """Which TCP congestion control new sockets have."""
    name = facts.congestion_control
    if not name.startswith("bbr"):
        return Check("congestion control", OK, name or "unknown")
    detail = f"{name} paces: between pods of one machine throughput is bounded by its timers"
    return Check(
        "congestion control", NOTE, detail, "for benchmarks: sysctl -w net.ipv4.tcp_congestion_control=cubic"
    )


def named_netns(facts: Facts) -> Check:
    """Where `ip netns` keeps names; --netns NAME looks there."""
    if facts.has_named_netns:
        return Check("named namespaces", OK, "/run/netns")
    return Check(
        "named namespaces", NOTE, "no /run/netns yet", "`ip netns add NAME` makes it; --pid works without"
    )


def source_ports(facts: Facts) -> Check:
    """How many connections a pod can have open: steered, all of them have one destination."""
    first, last = facts.source_ports
    if not last:
        remedy = "sysctl net.ipv4.ip_local_port_range in a pod's namespace tells"
        return Check("source ports", NOTE, "unknown how many connections a pod can have open", remedy)
    detail = f"{last - first + 1} outbound connections open at once for each pod ({first}-{last})"
    if last - first + 1 >= FEW_PORTS:
        return Check("source ports", OK, detail)
    return Check(
        "source ports", NOTE, detail, "set net.ipv4.ip_local_port_range wider in the pods' namespaces"
    )


def leftovers(facts: Facts) -> Check:
    """Pins that no daemon owns: their pods' connections are refused until one adopts them."""
    if not facts.leftovers:
        return Check("leftover pins", OK, "none")
    nodes = ", ".join(facts.leftovers)
    remedy = "start the node again (zproxy run adopts them), or remove them: zproxy cleanup --node NAME"
    return Check("leftover pins", WARNING, f"no daemon runs for {nodes}", remedy)


def _release(facts: Facts) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", facts.release)
    return (int(match[1]), int(match[2])) if match else (0, 0)

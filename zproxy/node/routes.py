"""Routing inside an enrolled pod, so that the app's answers to a borrowed source address come back over lo.

The socket towards the app is bound to the client's address and marked 0x111; with tcp_fwmark_accept the
app's accepted socket inherits the mark from the SYN, and the rule sends what is marked so to table 100,
where everything is local. fwmark_reflect does the same for what no socket answers: without it the RST of
a closed app port would leave by eth0, towards the real client, and the connect would time out. Numbers are
Istio's. tcp_tw_reuse=1 is for the other direction: all of the pod's connections share one rewritten
destination, and with it one range of source ports.
"""

import errno
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from zproxy.config import SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_RULE_PRIORITY, SOURCE_TABLE
from zproxy.errors import EnrollError
from zproxy.net import netlink, netlink_change
from zproxy.net.netlink import Rule
from zproxy.net.netns import Netns
from zproxy.node import aliases

SYSCTLS: Final = {
    "net/ipv4/tcp_fwmark_accept": "1",  # serves IPv6 too
    "net/ipv4/fwmark_reflect": "1",
    "net/ipv6/fwmark_reflect": "1",  # absent where the kernel runs without IPv6
    "net/ipv4/tcp_tw_reuse": "1",
}
PORT_RANGE: Final = "net/ipv4/ip_local_port_range"
PROC_SYS: Final = Path("/proc/sys")

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
RTN_LOCAL: Final = 2
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT, errno.ENODEV})
_NO_IPV6: Final = _GONE | {errno.EACCES}
"""EACCES: net.ipv6.conf.lo.disable_ipv6 is set."""


class PodNetwork:
    """Addresses, interfaces and routing of one pod's namespace. Blocks for a fraction of a millisecond."""

    def __init__(self, netns: Netns) -> None:
        self._netns = netns

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the global addresses and the names of the interfaces that carry them."""

        def read() -> tuple[tuple[str, ...], tuple[str, ...]]:
            names = {interface.ifindex: interface.name for interface in netlink.interfaces()}
            found = [
                (address.ip, names[address.ifindex])
                for address in netlink.addresses()
                if address.ifindex != netlink_change.LOOPBACK and address.ifindex in names
            ]
            return tuple(ip for ip, _ in found), tuple(dict.fromkeys(name for _, name in found))

        return self._netns.run(read)

    def source_ports(self) -> int:
        """Return how many source ports the kernel chooses from for the pod's connections."""
        first, last = self._netns.run(lambda: (PROC_SYS / PORT_RANGE).read_text().split())
        return int(last) - int(first) + 1

    def capture_dns(self, ips: Sequence[str], interface: str) -> None:
        """Make the aliases of resolvers local to the pod; `restore` and `release_dns` undo it."""
        self._netns.run(partial(aliases.install, ips, interface))

    def release_dns(self) -> None:
        """Undo `capture_dns`."""
        self._netns.run(aliases.uninstall)

    def prepare(self) -> dict[str, str]:
        """Install sysctls, rule and route; return the sysctls' former values for `restore`.

        Idempotent. Raise EnrollError, with everything as it was, when table or priority serve somebody else
        or the kernel refuses.
        """
        self._netns.run(_refuse_strangers)
        former = self._netns.run(_read_sysctls)
        try:
            self._netns.run(lambda: _write_sysctls({name: SYSCTLS[name] for name in former}))
            self._netns.run(_install)
        except BaseException:
            self.restore(former)
            raise
        return former

    def restore(self, former: dict[str, str]) -> None:
        """Undo `prepare`; tolerates whatever is gone already."""
        try:
            self._netns.run(_uninstall)
            self._netns.run(aliases.uninstall)
        finally:
            self._netns.run(lambda: _write_sysctls(former))


class ExternalNetwork(PodNetwork):
    """The namespace of a pod in which others do what brings replies back: nothing of it is touched."""

    def capture_dns(self, ips: Sequence[str], interface: str) -> None:
        """Do nothing."""

    def release_dns(self) -> None:
        """Do nothing."""

    def prepare(self) -> dict[str, str]:
        """Do nothing."""
        return {}

    def restore(self, former: dict[str, str]) -> None:
        """Do nothing."""


def _refuse_strangers() -> None:
    """Rule and route of an earlier enrolment are ours again; anybody else's stay as they are."""
    for family in FAMILIES:
        rules = [rule for rule in netlink.rules(family) if _uses_our_numbers(rule)]
        routes = netlink.routes(family, SOURCE_TABLE)
        is_ours = all((route.type, route.prefix_length) == (RTN_LOCAL, 0) for route in routes)
        if not is_ours or any(rule != _rule(family) for rule in rules):
            raise EnrollError(
                f"routing table {SOURCE_TABLE} or rule priority {SOURCE_RULE_PRIORITY} is used in the pod's "
                "namespace by somebody else, a VPN or another mesh; `ip rule` and `ip route show table "
                f"{SOURCE_TABLE}` show how"
            )


def _uses_our_numbers(rule: Rule) -> bool:
    return rule.table == SOURCE_TABLE or rule.priority == SOURCE_RULE_PRIORITY


def _rule(family: int) -> Rule:
    return Rule(family, SOURCE_RULE_PRIORITY, SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_TABLE)


def _install() -> None:
    for family in FAMILIES:
        try:
            netlink_change.put_local_route(family, SOURCE_TABLE)
            netlink_change.add_rule(_rule(family))
        except OSError as error:
            if error.errno == errno.EEXIST or (family == socket.AF_INET6 and error.errno in _NO_IPV6):
                continue
            if error.errno == errno.ENETDOWN:
                raise EnrollError("lo is down in the pod's namespace; there, `ip link set lo up`") from error
            raise EnrollError(
                f"cannot install the pod's route of table {SOURCE_TABLE}: {error.strerror}"
            ) from error


def _uninstall() -> None:
    for family in FAMILIES:
        for undo in (
            partial(netlink_change.delete_rule, _rule(family)),
            partial(netlink_change.delete_local_route, family, SOURCE_TABLE),
        ):
            try:
                undo()
            except OSError as error:
                if error.errno not in _GONE:
                    raise


def _read_sysctls() -> dict[str, str]:
    present = (name for name in SYSCTLS if (PROC_SYS / name).exists())
    return {name: (PROC_SYS / name).read_text().strip() for name in present}


def _write_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        try:
            (PROC_SYS / name).write_text(value)
        except OSError as error:
            raise EnrollError(
                f"cannot set {name.replace('/', '.')} in the pod's namespace: "
                f"{os.strerror(error.errno or 0)}; is /proc/sys mounted read-only?"
            ) from error

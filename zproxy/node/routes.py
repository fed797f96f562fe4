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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from zproxy.config import SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_RULE_PRIORITY, SOURCE_TABLE
from zproxy.errors import EnrollError
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
T = TypeVar("T")

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
RTN_LOCAL: Final = 2
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT, errno.ENODEV})
_NO_IPV6: Final = _GONE | {errno.EACCES}
"""EACCES: net.ipv6.conf.lo.disable_ipv6 is set."""


class PodNetwork:
    """Addresses, interfaces and routing of one pod's namespace, read and changed through netlink.

    Blocking (a few milliseconds), and NEVER for the event loop's thread: pyroute2 runs a loop of its own.
    """

    def __init__(self, netns: Netns) -> None:
        self._netns = netns

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the global addresses and the names of the interfaces that carry them.

        On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own; IPv6 has it there only.
        """

        def read(ipr: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
            found = [
                (address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"), names[address["index"]])
                for address in ipr.get_addr()
                if address["scope"] == 0 and names.get(address["index"]) != "lo"
            ]
            return tuple(ip for ip, _ in found), tuple(dict.fromkeys(name for _, name in found))

        return self._with_netlink(read)

    def source_ports(self) -> int:
        """Return how many source ports the kernel chooses from for the pod's connections."""
        first, last = self._netns.run(lambda: (PROC_SYS / PORT_RANGE).read_text().split())
        return int(last) - int(first) + 1

    def capture_dns(self, ips: Sequence[str], interface: str) -> None:
        """Make the aliases of resolvers local to the pod; `restore` and `release_dns` undo it."""
        self._with_netlink(partial(aliases.install, ips=ips, interface=interface))

    def release_dns(self) -> None:
        """Undo `capture_dns`."""
        self._with_netlink(aliases.uninstall)

    def prepare(self) -> dict[str, str]:
        """Install sysctls, rule and route; return the sysctls' former values for `restore`.

        Idempotent. Raise EnrollError, with everything as it was, when table or priority serve somebody else
        or the kernel refuses.
        """
        self._with_netlink(_refuse_strangers)
        former = self._netns.run(_read_sysctls)
        try:
            self._netns.run(lambda: _write_sysctls({name: SYSCTLS[name] for name in former}))
            self._with_netlink(_install)
        except BaseException:
            self.restore(former)
            raise
        return former

    def restore(self, former: dict[str, str]) -> None:
        """Undo `prepare`; tolerates whatever is gone already."""
        try:
            self._with_netlink(_uninstall)
            self._with_netlink(aliases.uninstall)
        finally:
            self._netns.run(lambda: _write_sysctls(former))

    def _with_netlink(self, work: Callable[[Any], T]) -> T:
        def talk() -> T:
            with IPRoute() as ipr:
                return work(ipr)

        return self._netns.run(talk)


def _refuse_strangers(ipr: Any) -> None:
    """Rule and route of an earlier enrolment are ours again; anybody else's stay as they are."""
    for family in FAMILIES:
        rules = [rule for rule in ipr.get_rules(family=family) if _uses_our_numbers(rule)]
        routes = ipr.get_routes(family=family, table=SOURCE_TABLE)
        if not all(map(_is_our_rule, rules)) or not all(map(_is_our_route, routes)):
            raise EnrollError(
                f"routing table {SOURCE_TABLE} or rule priority {SOURCE_RULE_PRIORITY} is used in the pod's "
                "namespace by somebody else, a VPN or another mesh; `ip rule` and `ip route show table "
                f"{SOURCE_TABLE}` show how"
            )


def _uses_our_numbers(rule: Any) -> bool:
    is_our_table: bool = rule.get_attr("FRA_TABLE") == SOURCE_TABLE
    return is_our_table or bool(rule.get_attr("FRA_PRIORITY") == SOURCE_RULE_PRIORITY)


def _is_our_rule(rule: Any) -> bool:
    names = ("FRA_FWMARK", "FRA_FWMASK", "FRA_TABLE", "FRA_PRIORITY")
    ours = (SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_TABLE, SOURCE_RULE_PRIORITY)
    return tuple(map(rule.get_attr, names)) == ours


def _is_our_route(route: Any) -> bool:
    return (route["type"], route["dst_len"]) == (RTN_LOCAL, 0)


def _install(ipr: Any) -> None:
    lo = ipr.link_lookup(ifname="lo")[0]
    for family in FAMILIES:
        try:
            ipr.route("replace", **_route(family, lo))
            ipr.rule("add", **_rule(family))
        except NetlinkError as error:
            if error.code == errno.EEXIST or (family == socket.AF_INET6 and error.code in _NO_IPV6):
                continue
            if error.code == errno.ENETDOWN:
                raise EnrollError("lo is down in the pod's namespace; there, `ip link set lo up`") from error
            raise EnrollError(
                f"cannot install the pod's route of table {SOURCE_TABLE}: {os.strerror(error.code)}"
            ) from error


def _uninstall(ipr: Any) -> None:
    lo = ipr.link_lookup(ifname="lo")[0]
    for family in FAMILIES:
        for command, what in ((ipr.rule, _rule(family)), (ipr.route, _route(family, lo))):
            try:
                command("del", **what)
            except NetlinkError as error:
                if error.code not in _GONE:
                    raise OSError(error.code, os.strerror(error.code)) from error


def _rule(family: int) -> dict[str, Any]:
    return {
        "family": family,
        "fwmark": SOURCE_MARK,
        "fwmask": SOURCE_MARK_MASK,
        "table": SOURCE_TABLE,
        "priority": SOURCE_RULE_PRIORITY,
    }


def _route(family: int, lo: int) -> dict[str, Any]:
    return {
        "family": family,
        "dst": "default",
        "type": "local",
        "scope": "host",
        "table": SOURCE_TABLE,
        "oif": lo,
    }


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

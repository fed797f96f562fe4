"""Routing inside an enrolled pod, so that the app's answers to a borrowed source address come back over lo.

The socket towards the app is bound to the client's address and marked 0x111; with tcp_fwmark_accept the
app's accepted socket inherits the mark from the SYN, and the rule sends what is marked so to table 100,
where everything is local. fwmark_reflect does the same for what no socket answers: without it the RST of
a closed app port would leave by eth0, towards the real client, and the connect would time out. Numbers are
Istio's. tcp_tw_reuse=1 is for the other direction: all of the pod's connections share one rewritten
destination, and with it one range of source ports.
"""

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from zproxy.config import SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_RULE_PRIORITY, SOURCE_TABLE
from zproxy.errors import EnrollError
from zproxy.net.netns import Netns

SYSCTLS: Final = {
    "net/ipv4/tcp_fwmark_accept": "1",  # serves IPv6 too
    "net/ipv4/fwmark_reflect": "1",
    "net/ipv6/fwmark_reflect": "1",  # absent where the kernel runs without IPv6
    "net/ipv4/tcp_tw_reuse": "1",
}
PROC_SYS: Final = Path("/proc/sys")
T = TypeVar("T")

_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT, errno.ENODEV})


class PodNetwork:
    """Addresses, interfaces and routing of one pod's namespace, read and changed through netlink.

    Blocking (a few milliseconds), and NEVER for the event loop's thread: pyroute2 runs a loop of its own.
    """

    def __init__(self, netns: Netns) -> None:
        self._netns = netns

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the global addresses and the names of the interfaces that carry them."""

        def read(ipr: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
            found = [
                (address.get_attr("IFA_ADDRESS"), names[address["index"]])
                for address in ipr.get_addr()
                if address["scope"] == 0 and names.get(address["index"]) != "lo"
            ]
            return tuple(ip for ip, _ in found), tuple(dict.fromkeys(name for _, name in found))

        return self._with_netlink(read)

    def prepare(self) -> dict[str, str]:
        """Install sysctls, rule and route; return the sysctls' former values for `restore`.

        Idempotent. Raise EnrollError when table or priority serve somebody else.
        """
        former = self._netns.run(_swap_sysctls)
        try:
            self._with_netlink(_install)
        except BaseException:
            self._netns.run(lambda: _write_sysctls(former))
            raise
        return former

    def restore(self, former: dict[str, str]) -> None:
        """Undo `prepare`; tolerates whatever is gone already."""
        self._with_netlink(_uninstall)
        self._netns.run(lambda: _write_sysctls(former))

    def _with_netlink(self, work: Callable[[Any], T]) -> T:
        def talk() -> T:
            with IPRoute() as ipr:
                return work(ipr)

        return self._netns.run(talk)


def _install(ipr: Any) -> None:
    lo = ipr.link_lookup(ifname="lo")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            ipr.route("replace", **_route(family, lo))
            ipr.rule("add", **_rule(family))
        except NetlinkError as error:
            if error.code == errno.EEXIST or (family == socket.AF_INET6 and error.code in _GONE):
                continue
            raise EnrollError(f"cannot install the pod's route for table {SOURCE_TABLE}: {error}") from error


def _uninstall(ipr: Any) -> None:
    lo = ipr.link_lookup(ifname="lo")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        for command, what in ((ipr.rule, _rule(family)), (ipr.route, _route(family, lo))):
            try:
                command("del", **what)
            except NetlinkError as error:
                if error.code not in _GONE:
                    raise


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


def _swap_sysctls() -> dict[str, str]:
    present = [name for name in SYSCTLS if (PROC_SYS / name).exists()]
    former = {name: (PROC_SYS / name).read_text().strip() for name in present}
    _write_sysctls({name: SYSCTLS[name] for name in present})
    return former


def _write_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        (PROC_SYS / name).write_text(value)

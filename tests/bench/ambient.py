"""What ambient mode installs in a pod with iptables, DNS capture included: the rival of eBPF steering.

The rules do what Istio's in-pod redirection does, for IPv4: capture of what leaves and of what arrives,
exemption of the proxy by its mark, the way back of borrowed source addresses, and zones that keep the
proxy's DNS apart from the app's.
"""

import subprocess
from typing import Final

from tests.support.netns import Namespace, batch
from zproxy.config import SOURCE_MARK, SOURCE_MARK_MASK, SOURCE_RULE_PRIORITY, SOURCE_TABLE
from zproxy.model import ports

PROXY: Final = "0x539/0xfff"
APP: Final = f"{SOURCE_MARK:#x}/{SOURCE_MARK_MASK:#x}"
PROBES: Final = "169.254.7.127/32"
DNS: Final = 15053

_OTHERS: Final = f"-m mark ! --mark {PROXY}"
_AWAY: Final = "! -d 127.0.0.1/32"
_TO: Final = "-j REDIRECT --to-ports"
_NOT_HBONE: Final = f"-p tcp -m tcp ! --dport {ports.INBOUND_HBONE}"
_JUMPS: Final = ("-A PREROUTING -j ISTIO_PRERT", "-A OUTPUT -j ISTIO_OUTPUT")
TABLES: Final = {
    "raw": (
        f"-A ISTIO_PRERT -p udp {_OTHERS} -m udp --sport 53 -j CT --zone 1",
        f"-A ISTIO_OUTPUT -p udp -m mark --mark {PROXY} -m udp --dport 53 -j CT --zone 1",
    ),
    "mangle": (
        f"-A ISTIO_PRERT -m mark --mark {PROXY} -j CONNMARK --set-xmark {APP}",
        f"-A ISTIO_OUTPUT -m connmark --mark {APP} -j CONNMARK --restore-mark",
    ),
    "nat": (
        f"-A ISTIO_PRERT -s {PROBES} -p tcp -j ACCEPT",
        f"-A ISTIO_PRERT {_AWAY} {_NOT_HBONE} {_OTHERS} {_TO} {ports.INBOUND_PLAINTEXT}",
        f"-A ISTIO_OUTPUT -d {PROBES} -p tcp -j ACCEPT",
        f"-A ISTIO_OUTPUT ! -o lo -p udp {_OTHERS} -m udp --dport 53 {_TO} {DNS}",
        f"-A ISTIO_OUTPUT {_AWAY} -p tcp {_OTHERS} -m tcp --dport 53 {_TO} {DNS}",
        f"-A ISTIO_OUTPUT -p tcp -m mark --mark {APP} -j ACCEPT",
        f"-A ISTIO_OUTPUT {_AWAY} -o lo -j ACCEPT",
        f"-A ISTIO_OUTPUT {_AWAY} -p tcp {_OTHERS} {_TO} {ports.OUTBOUND}",
    ),
}


def script() -> str:
    """Return the rules as iptables-restore reads them."""
    lines = []
    for table, rules in TABLES.items():
        lines += [f"*{table}", ":ISTIO_PRERT - [0:0]", ":ISTIO_OUTPUT - [0:0]", *_JUMPS, *rules, "COMMIT"]
    return "\n".join(lines) + "\n"


def redirect(pod: Namespace) -> None:
    """Install them in `pod`, with the route of table 100; raise RuntimeError with what iptables says."""
    command = ["ip", "netns", "exec", pod.name, "iptables-restore"]
    done = subprocess.run(command, input=script(), capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"iptables-restore in {pod.name}: {done.stderr.strip()}")
    mark = f"fwmark {APP} lookup {SOURCE_TABLE} priority {SOURCE_RULE_PRIORITY}"
    batch(pod.name, [f"rule add {mark}", f"route add local default dev lo table {SOURCE_TABLE}"])

"""An enrolled pod: its record and its handle."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.mesh import workload
from zproxy.model.pod import PodOptions, UdpPolicy
from zproxy.net.netns import Netns
from zproxy.node.pod import Pod
from zproxy.node.records import Record
from zproxy.node.routes import PodNetwork

OPTIONS = PodOptions(udp=UdpPolicy.BLOCK)


def make() -> Pod:
    unused: Any = None
    netns = Netns.current()
    pod = Pod(workload("demo/client"), netns, 7, unused, PodNetwork(netns), OPTIONS)
    pod.former_sysctls = {"net/ipv4/tcp_tw_reuse": "2"}
    return pod


def test_the_record_is_what_enrolment_was_asked_for() -> None:
    pod = make()
    sysctls = {"net/ipv4/tcp_tw_reuse": "2"}
    assert pod.record(None) == Record("demo/client", "/proc/thread-self/ns/net", 7, None, sysctls, OPTIONS)
    assert pod.record("other").service_account == "other"
    pod.close()


def test_it_knows_since_when() -> None:
    pod = make()
    assert timedelta(0) <= datetime.now(UTC) - pod.since < timedelta(minutes=1)
    pod.close()


def test_closing_drops_the_handle_and_is_idempotent() -> None:
    pod = make()
    pod.close()
    pod.close()
    assert pod.netns.fd == -1

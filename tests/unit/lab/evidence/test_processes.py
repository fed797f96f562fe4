"""What /proc says of a process."""

import os

import pytest

from tests.support.netns import namespace
from zproxy.lab.evidence import processes
from zproxy.net.netns import Netns


def test_capabilities_have_capshs_names() -> None:
    assert processes.decode_capabilities(1 << 12 | 1 << 13 | 1 << 21 | 1 << 39) == (
        "cap_net_admin",
        "cap_net_raw",
        "cap_sys_admin",
        "cap_bpf",
    )
    assert processes.decode_capabilities(1 << 45) == ("45",)


def test_a_process_has_its_name_and_namespace() -> None:
    found = processes.inspect(os.getpid())
    with Netns.current() as here:
        assert found.netns == here.key
    assert (found.pid, bool(found.command)) == (os.getpid(), True)


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        processes.inspect(2**22 + 1)


@pytest.mark.root
def test_the_hosts_namespace_is_not_a_pods() -> None:
    host = processes.in_host_namespace()
    assert host is not None
    with namespace() as pod:
        assert pod.netns.key != host.netns

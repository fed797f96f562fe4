"""What a runtime says of a sandbox, as a record."""

import json
from typing import Any

import pytest

from zproxy.cri.answers import MAX_INFO, brief, sandbox
from zproxy.cri.sandbox import Brief, PodSandbox
from zproxy.proto import cri_pb2

CONTAINERD = {
    "pid": 4711,
    "runtimeHandler": "",
    "runtimeType": "io.containerd.runc.v2",
    "config": {"linux": {"cgroup_parent": "/kubepods/burstable/pod8d1f"}},
    "runtimeSpec": {
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "network", "path": "/run/netns/cni-8d1f"},
                {"type": "uts"},
            ]
        }
    },
}


def answer(info: str, **fields: Any) -> cri_pb2.PodSandboxStatusResponse:
    status = cri_pb2.PodSandboxStatus(
        id="5a9dc0",
        metadata=cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="8d1f", attempt=1),
        created_at=17,
        network=cri_pb2.PodSandboxNetworkStatus(ip="10.0.0.2", additional_ips=[cri_pb2.PodIP(ip="fd00::2")]),
        labels={"app": "web"},
        annotations={"note": "yes"},
        **fields,
    )
    return cri_pb2.PodSandboxStatusResponse(status=status, info={"info": info})


def test_everything_of_a_sandbox_is_read() -> None:
    assert sandbox(answer(json.dumps(CONTAINERD))) == PodSandbox(
        Brief("5a9dc0", "shop", "web", "8d1f", True, 17),
        ("10.0.0.2", "fd00::2"),
        False,
        "/run/netns/cni-8d1f",
        4711,
        "/kubepods/burstable/pod8d1f",
        "io.containerd.runc.v2",
        {"app": "web"},
        {"note": "yes"},
    )


def test_host_network_and_end_are_told_by_the_interface_itself() -> None:
    host = cri_pb2.NamespaceOption(network=cri_pb2.NODE)
    linux = cri_pb2.LinuxPodSandboxStatus(namespaces=cri_pb2.Namespace(options=host))
    found = sandbox(answer("{}", state=cri_pb2.SANDBOX_NOTREADY, linux=linux))
    assert found.is_host_network
    assert not found.brief.is_ready


def test_the_handler_is_taken_from_wherever_it_stands() -> None:
    assert sandbox(answer("{}", runtime_handler="kata")).brief.runtime_handler == "kata"
    assert sandbox(answer('{"runtimeHandler": "runsc"}')).brief.runtime_handler == "runsc"


@pytest.mark.parametrize(
    "info",
    [
        "",
        "no JSON",
        "[]",
        "7",
        "[" * 100_000,
        '{"pid": "12", "runtimeSpec": [], "config": "x"}',
        '{"pid": 0, "runtimeSpec": {"linux": {"namespaces": {"type": "network"}}}}',
        '{"pid": -1, "runtimeSpec": {"linux": {"namespaces": [1, {"type": "network", "path": 7}]}}}',
        '{"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "../etc"}]}}}',
        '{"pid": 1, "more": "' + "x" * MAX_INFO + '"}',
    ],
    ids=lambda info: info[:20],
)
def test_odd_json_of_a_runtime_leaves_empty_what_it_does_not_say(info: str) -> None:
    found = sandbox(answer(info))
    assert (found.netns, found.pid, found.cgroup_parent, found.runtime_type) == ("", None, "", "")
    assert found.pod == "shop/web"


def test_an_entry_of_a_list_has_the_same_brief() -> None:
    of = cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="8d1f")
    item = cri_pb2.PodSandbox(id="5a9dc0", metadata=of, created_at=17, runtime_handler="kata")
    assert brief(item) == Brief("5a9dc0", "shop", "web", "8d1f", True, 17, "kata")

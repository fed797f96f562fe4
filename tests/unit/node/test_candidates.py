"""What `zproxy pods --all` says about pods that are not enrolled."""

from typing import Any

import pytest

from tests.support.runtime import FakeManager, sandbox
from zproxy.errors import EnrollError
from zproxy.node.candidates import row_of


def test_a_row_has_the_keys_of_an_enrolled_pod() -> None:
    manager: Any = FakeManager()
    found = sandbox("shop/web", uid="8d1f", ips=("10.0.0.2",), cgroup_parent="/kubepods/pod8d1f")
    assert row_of(found, manager) == {
        "pod": "shop/web",
        "namespace": "shop",
        "name": "web",
        "node": "node-a",
        "ips": ["10.0.0.2"],
        "state": "ready",
        "reason": "",
        "netns": {"path": "/run/netns/web"},
        "cgroup": "/kubepods/pod8d1f",
        "sandbox": "id-web",
        "pod_uid": "8d1f",
    }


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"is_ready": False}, "ended"),
        ({"is_host_network": True}, "unfit"),
        ({"is_host_network": True, "is_ready": False}, "unfit"),
        ({"handler": "kata"}, "unfit"),
    ],
)
def test_a_pod_that_cannot_be_enrolled_says_why(fields: dict[str, Any], state: str) -> None:
    manager: Any = FakeManager()
    row = row_of(sandbox("shop/web", **fields), manager)
    assert row["state"] == state
    assert row["reason"].startswith("shop/web ")


def test_a_pod_that_the_mesh_does_not_have_is_unknown() -> None:
    manager: Any = FakeManager()
    manager.failures["shop/web"] = EnrollError("unknown pod shop/web")
    row = row_of(sandbox("shop/web"), manager)
    assert (row["state"], row["reason"]) == ("unknown", "unknown pod shop/web")

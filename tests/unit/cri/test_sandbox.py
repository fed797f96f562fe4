"""Which sandboxes can be pods of ours, and which one of several is meant."""

from typing import Any

import pytest

from tests.support.runtime import sandbox as made
from zproxy.cri.sandbox import choose, refusal


def test_nothing_speaks_against_an_ordinary_pod() -> None:
    assert refusal(made("shop/web")) == ""


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"is_host_network": True}, "on its node's network"),
        ({"is_ready": False}, "has ended"),
        ({"handler": "kata-qemu"}, "runs under kata-qemu"),
        ({"runtime_type": "io.containerd.runsc.v1"}, "runs under io.containerd.runsc.v1"),
        ({"handler": "gVisor"}, "runs under gVisor"),
        ({"netns": "", "pid": None}, "neither its network namespace nor a process"),
    ],
)
def test_what_cannot_be_enrolled_is_refused_with_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    said = refusal(made("shop/web", **fields))
    assert said.startswith("shop/web ")
    assert sentence in said


def test_a_sandbox_that_ended_gives_way_to_the_one_that_came_after() -> None:
    old, new = made("shop/web", "old", is_ready=False).brief, made("shop/web", "new").brief
    assert choose([old, new], "shop/web") == new


def test_none_is_empty_text() -> None:
    assert choose([], "shop/web") == ""


def test_only_ended_ones_are_not_ready_and_the_latest_is_named() -> None:
    listed = [made("shop/web", f"id{n}", is_ready=False, created=n).brief for n in (1, 3, 2)]
    said = choose(listed, "shop/web")
    assert isinstance(said, str)
    assert "not ready: its sandbox id3 has ended" in said


def test_several_pods_of_one_name_are_chosen_by_uid() -> None:
    said = choose([made("shop/web", uid=uid).brief for uid in ("u1", "u2")], "shop/web")
    assert said == "shop/web has 2 sandboxes that are ready (u1, u2); choose with --pod-uid"


def test_several_sandboxes_of_one_pod_are_chosen_by_namespace() -> None:
    said = choose([made("shop/web", name).brief for name in ("one", "two")], "shop/web")
    assert said == "shop/web has 2 sandboxes that are ready (one, two); choose with --netns"

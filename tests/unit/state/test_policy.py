"""The policy decision, and whose address a target is."""

from tests.support.mesh import mesh, workload
from zproxy.model.addr import Endpoint
from zproxy.state.policy import ALLOWED, Attempt, Verdict, allow_all, judge
from zproxy.state.store import Mesh

SERVER = workload("demo/server", "10.244.2.5", "fd00:244:2::5")
CLIENT = workload("demo/client", "10.244.1.5")
ATTEMPT = Attempt(SERVER, CLIENT.identity, "10.244.1.5", Endpoint("10.244.2.5", 80))


def deny(_: Mesh, attempt: Attempt) -> Verdict:
    return Verdict(False, f"explicitly denied: port {attempt.target.port}")


def test_without_policies_everything_is_allowed() -> None:
    assert judge(mesh(CLIENT, SERVER), ATTEMPT, allow_all) is ALLOWED


def test_what_a_policy_says_is_the_verdict() -> None:
    assert judge(mesh(CLIENT, SERVER), ATTEMPT, deny) == Verdict(False, "explicitly denied: port 80")


def test_an_address_that_now_belongs_to_another_pod_is_rejected_before_any_policy() -> None:
    verdict = judge(mesh(workload("demo/successor", "10.244.2.5")), ATTEMPT, allow_all)
    assert verdict == Verdict(
        False, "workload mismatch: 10.244.2.5 belongs to demo/successor, not to demo/server"
    )


def test_an_address_that_the_mesh_has_forgotten_is_rejected() -> None:
    verdict = judge(mesh(CLIENT), ATTEMPT, allow_all)
    assert verdict == Verdict(False, "workload not found: the mesh knows nobody at 10.244.2.5")


def test_a_newer_record_of_the_same_workload_is_the_same_workload() -> None:
    renewed = workload("demo/server", "10.244.2.5", node="moved")
    assert judge(mesh(renewed), ATTEMPT, allow_all) is ALLOWED

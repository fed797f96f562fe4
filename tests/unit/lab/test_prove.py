"""All claims over one observation."""

from dataclasses import replace

from tests.unit.lab.healthy import client_pod, healthy
from zproxy.lab.evidence.capture import Captured
from zproxy.lab.prove import judge


def test_a_healthy_mesh_proves_its_claims_in_order() -> None:
    proofs = judge(healthy())
    assert [proof.claim for proof in proofs] == [1, 2, 3, 4, 5, 6]
    assert all(proof.holds for proof in proofs), [proof.against for proof in proofs]


def test_a_run_that_saw_nothing_proves_nothing() -> None:
    empty = replace(
        client_pod(), captured=Captured((), 0), connections=(), tunnels=(), listeners=(), steering=()
    )
    proofs = judge(healthy(source=empty, answers=(), called=()))
    assert not any(proof.holds for proof in proofs)


def test_without_a_service_nothing_is_claimed_about_one() -> None:
    assert [proof.claim for proof in judge(healthy(service=None, called=()))] == [1, 2, 3, 4, 5]

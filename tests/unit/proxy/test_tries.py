"""What was tried before."""

from tests.support.mesh import workload
from zproxy.model.addr import Endpoint
from zproxy.model.route import Role, Upstream
from zproxy.proxy.tries import FIRST

ADDRESS = Endpoint("10.0.0.1", 15008)


def test_whoever_was_dialled_or_meant_was_tried() -> None:
    pod, gate = workload("demo/pod", uid="pod"), workload("demo/gate", uid="gate")
    direct = Upstream(pod, ADDRESS, "", (), 80)
    through = Upstream(gate, ADDRESS, "", (), 80, role=Role.GATEWAY, beyond="far")
    tries = FIRST.after(direct, b"").after(through, b"said")
    assert (tries.said, tries.routes) == (b"said", (direct, through))
    assert tries.uids == {"pod", "gate", "far"}
    assert FIRST.uids == frozenset()

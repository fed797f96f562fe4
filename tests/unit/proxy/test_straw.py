"""A pod's listeners."""

from contextlib import closing

import pytest

from tests.support.netns import namespace
from tests.support.plane import Plane
from zproxy.errors import EnrollError
from zproxy.net.sockets import SocketFactory
from zproxy.proxy.straw import PORTS, Straw

pytestmark = pytest.mark.root


def test_three_listeners_stand_in_the_pod_and_go_with_the_straw() -> None:
    with closing(Plane()) as plane, namespace() as pod:
        plane.server.sockets = SocketFactory(pod.netns, lambda fd: None)
        straw = Straw(plane.server)
        assert tuple(listener.port for listener in straw.listeners) == PORTS
        shown = pod.execute("ss", "-Hltn").stdout
        assert all(f":{port} " in shown for port in PORTS)
        assert straw.plaintext_fd == straw.listeners[1].sock.fileno()
        straw.close("over")
        assert pod.execute("ss", "-Hltn").stdout == ""


@pytest.mark.parametrize("port", PORTS)
def test_a_taken_port_is_named_and_the_others_are_given_back(port: int) -> None:
    with closing(Plane()) as plane, namespace() as pod:
        squatter = pod.listen(port)
        plane.server.sockets = SocketFactory(pod.netns, lambda fd: None)
        with pytest.raises(EnrollError, match=f"port {port} is in use inside the pod"):
            Straw(plane.server)
        squatter.close()
        assert pod.execute("ss", "-Hltn").stdout == ""

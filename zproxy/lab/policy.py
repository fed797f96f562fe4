"""`zproxy lab policy`: allow, deny and back, under a connection that is open all the while."""

import http.client
import socket
import time
from typing import Final, NamedTuple

from zproxy.errors import ConfigError, ZproxyError
from zproxy.lab import mesh_file
from zproxy.lab.layout import APP_PORTS, CLIENT, SERVICE
from zproxy.lab.lifecycle import Lab, Say, alone, is_whole, open_pod
from zproxy.lab.logs import Tail
from zproxy.lab.mesh_file import Policy
from zproxy.lab.traffic import curl
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.net.netns import Netns

TARGET: Final = Endpoint(SERVICE.vips[0], APP_PORTS[0])
CLOSE_S: Final = 1.0
"""What is no longer allowed ends within this."""
_GOES_ON_S: Final = 1.0
"""As long is looked at what should go on."""
_ANSWER_S: Final = 5.0
_PAUSE_S: Final = 0.05
_LOG_S: Final = 3.0
_END: Final = "connection closed due to policy change: explicitly denied by: "
_REFUSAL: Final = "connection closed due to policy rejection: explicitly denied by: "
_REFUSED: Final = "http status: 401"


class Scene(NamedTuple):
    """What the steps of the demonstration have in common."""

    say: Say
    lab: Lab
    netns: Netns
    """The client pod's."""
    text: str
    """The mesh file as it was, and as it is again in the end."""


def show(say: Say, lab: Lab | None = None) -> None:
    """Show on the live lab what policies do; raise ZproxyError when one does not do what it should.

    The mesh file is as before in the end, also after an interrupt.
    """
    lab = lab or Lab()
    with alone(lab, say):
        if not is_whole(lab):
            raise ConfigError("the lab is not up; `zproxy lab up` builds it")
        text = mesh_file.own_text(lab)
        with open_pod(CLIENT, lab) as netns:
            scene = Scene(say, lab, netns, text)
            try:
                _put(scene)
                _play(scene)
            finally:
                mesh_file.put(lab, text)


def _play(scene: Scene) -> None:
    identity = str(SpiffeId("cluster.local", SERVICE.namespace, "client")).removeprefix("spiffe://")
    allow = Policy("allow-the-client", "Allow", identity)
    deny = Policy("deny-the-client", "Deny", identity)
    stream = _Stream(scene.netns, TARGET)
    try:
        stream.ask()
        scene.say(f"{CLIENT} has a connection open to {SERVICE.hostname} ({TARGET}); there is no policy")
        _put(scene, allow)
        asked = stream.asks_on(_GOES_ON_S)
        scene.say(f"ALLOW {identity}: the open connection goes on, {asked} more requests in a second")
        _deny(scene, stream, allow, deny)
    finally:
        stream.close()
    _put(scene)
    answer = curl(scene.netns, TARGET, "/get")
    if answer.status != 200:
        raise ZproxyError(f"without policies a new connection fails: {answer.error or answer.status}")
    scene.say("both taken out again: a new connection is answered with 200")


def _deny(scene: Scene, stream: "_Stream", allow: Policy, deny: Policy) -> None:
    tails = [Tail(job.log) for job in scene.lab.daemons]
    began = mesh_file.put(scene.lab, mesh_file.with_policies(scene.text, (allow, deny)))
    ended = stream.wait_for_end(began + CLOSE_S)
    if ended is None:
        raise ZproxyError(f"{deny.key} is there, and the open connection was not closed within a second")
    scene.say(f"DENY {deny.principal}: the open connection was closed after {(ended - began) * 1000:.0f} ms")
    mesh_file.wait_until_taken(scene.lab, (allow, deny))
    answer = curl(scene.netns, TARGET, "/get")
    if not answer.error:
        raise ZproxyError(f"{deny.key} is there, and a new connection was answered with {answer.status}")
    scene.say(f"... and a new one is refused: {answer.error}")
    for tail, node, wanted in zip(
        tails,
        scene.lab.layout.nodes,
        ((_REFUSED,), (_END + deny.key, _REFUSAL + deny.key)),
        strict=True,
    ):
        scene.say(f"... in the log of {node.name}, {tail.path}:")
        for line in tail.wait(wanted, _LOG_S):
            scene.say(f"    {line}")


def _put(scene: Scene, *policies: Policy) -> None:
    mesh_file.put(scene.lab, mesh_file.with_policies(scene.text, policies))
    mesh_file.wait_until_taken(scene.lab, policies)


class _Stream:
    """One connection of the client's app, kept open, and asked something from time to time."""

    def __init__(self, netns: Netns, to: Endpoint) -> None:
        self._socket = netns.run(lambda: _dial(to))
        self._http = http.client.HTTPConnection(to.ip, to.port)
        self._http.sock = self._socket

    def ask(self) -> None:
        """Send a request and read the answer; raise ZproxyError when there is none."""
        try:
            self._http.request("GET", "/get")
            self._http.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise ZproxyError(f"the open connection broke: {error}") from error

    def asks_on(self, seconds: float) -> int:
        """Ask again and again for so long; return how often."""
        deadline, count = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            self.ask()
            count += 1
            time.sleep(_PAUSE_S)
        return count

    def wait_for_end(self, deadline: float) -> float | None:
        """Return when the connection ended (monotonic), None when it had not by `deadline`."""
        self._socket.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            self._socket.recv(1)
        except TimeoutError:
            return None
        except ConnectionError:  # a reset, which is how it should end
            return time.monotonic()
        return time.monotonic()

    def close(self) -> None:
        """Close it; idempotent."""
        self._http.close()


def _dial(to: Endpoint) -> socket.socket:
    """Connect by address alone; in the pod's namespace, and so as steered as the pod's own programs."""
    dialled = socket.socket(socket.AF_INET)
    try:
        dialled.settimeout(_ANSWER_S)
        dialled.connect((to.ip, to.port))
    except BaseException:
        dialled.close()
        raise
    return dialled

"""New programs and new layouts of maps come under running traffic: nothing fails, nothing gets past."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.node.test_lifecycle import keep_talking
from tests.support.capture import capturing
from tests.support.foreign import cgroup
from tests.support.netns import PREFIX, pair
from tests.support.nodes import App, TwoNodes, enduring, exchange, peer_echo, two_nodes, wait_for
from tests.support.versions import install_from, other_layout, version
from zproxy.steering import links, syscall
from zproxy.steering.hooks import HOOKS
from zproxy.steering.info import prog_info
from zproxy.steering.layout import LAYOUT
from zproxy.steering.pins import NodePins

pytestmark = pytest.mark.root

ROUNDS = 20
SECRET = b"bytes of the app"


class Dialler:
    """Dials again and again, IPv4 and IPv6 in turn, until it is stopped; keeps how each attempt ended."""

    def __init__(self, nodes: TwoNodes, port: int) -> None:
        self.answers = 0
        self.failures: list[tuple[float, OSError]] = []
        self._nodes, self._port = nodes, port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._dial, daemon=True)

    def _dial(self) -> None:
        number = 0
        while not self._is_over.wait(0.005):
            number += 1
            began = time.monotonic()
            ip = (self._nodes.server.ip4, self._nodes.server.ip6)[number % 2]
            try:
                assert exchange(self._nodes.dial(self._port, ip), SECRET).endswith(SECRET)
                self.answers += 1
            except OSError as error:
                self.failures.append((time.monotonic() - began, error))

    @contextmanager
    def running(self) -> Iterator["Dialler"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            self._thread.join(20)
            assert not self._thread.is_alive()


def programs_of_links(pins: NodePins) -> dict[str, int]:
    """Return the id of the program that each link runs, by hook; all links of a hook run the same."""
    found: dict[str, int] = {}
    by_pin = {hook.pin: name for name, hook in HOOKS.items()}
    for path in pins.link_pins():
        info = links.describe(path)
        assert info is not None
        assert found.setdefault(by_pin[path.name.partition("-")[0]], info.prog_id) == info.prog_id
    return found


def pinned_programs(pins: NodePins) -> dict[str, int]:
    found = {}
    for name in HOOKS:
        fd = syscall.obj_get(pins.programs / name)
        found[name] = prog_info(fd).id
        os.close(fd)
    return found


@pytest.mark.timeout(240)
def test_twenty_upgrades_under_load_cost_no_connection(tmp_path: Path) -> None:
    """Every link there is, at cgroups, interfaces and the namespace, gets each build's program."""
    flag = '    "-Wall",\n'
    with ExitStack() as stack:
        kubelet, own = (stack.enter_context(cgroup(f"{PREFIX}{name}")) for name in ("kubelet", "own"))
        # A daemon would put its own programs back: only the newest one is to run.
        options = ("--kubelet-cgroup", str(kubelet), "--reconcile-interval", "3600")
        nodes = stack.enter_context(two_nodes(tmp_path, options=options))
        nodes.a.client.call("unenroll", pod="demo/client")
        nodes.a.client.call("enroll", pod="demo/client", netns=nodes.client.name, cgroup=str(own))
        for port, handle in ((7301, peer_echo), (7302, keep_talking)):
            stack.callback(App(nodes.server, port, handle).close)
        pins = NodePins(nodes.a.name)
        seen = set(programs_of_links(pins).values())
        with Dialler(nodes, 7301).running() as dialler, nodes.dial(7302) as open_one:
            for number in range(ROUNDS):
                define = {flag: f'{flag}    "-DZP_ROUND={number}",\n'}
                other = version(tmp_path / f"build-{number}", {"zproxy/steering/source.py": define})
                install_from(other, nodes.a.name)
                programs = programs_of_links(pins)
                assert programs == pinned_programs(pins)
                assert seen.isdisjoint(programs.values())
                seen |= set(programs.values())
                open_one.sendall(b"still here")
                assert open_one.recv(100) == b"still here"
                assert open_one.getpeername() == (nodes.server.ip4, 7302)
        assert dialler.failures == []
        assert dialler.answers > ROUNDS


@pytest.mark.parametrize("layout", [LAYOUT - 1, LAYOUT + 1])
def test_another_layout_is_followed_by_this_one_and_nothing_gets_past(tmp_path: Path, layout: int) -> None:
    """Its daemon, kill -9, this version: steered or refused at every moment, and afterwards as before."""
    with pair() as pods, ExitStack() as stack:
        nodes = TwoNodes(tmp_path, *pods)
        nodes.a.source = version(tmp_path / "other", other_layout(layout))
        for node in (nodes.a, nodes.b):
            stack.callback(node.clean)
        nodes.start()
        nodes.enroll_client()
        nodes.enroll_server()
        stack.callback(App(nodes.server, 7311, enduring(peer_echo)).close)
        pins = NodePins(nodes.a.name)
        before = set(programs_of_links(pins).values())
        assert before
        with capturing(nodes.server) as capture, Dialler(nodes, 7311).running() as dialler:
            wait_for(lambda: dialler.answers, "answers of the other version")
            nodes.a.stop(signal.SIGKILL)
            nodes.a.source = None
            nodes.a.start()
            wait_for(lambda: not pins.former.directory.exists(), "the pods are taken up")
            assert exchange(nodes.dial(7311), SECRET).endswith(SECRET)
        assert dialler.failures, "nobody dialled while no daemon was there"
        assert nodes.a.lines(f"has map layout {layout}, this version has {LAYOUT}; its pods are taken up")
        after = programs_of_links(pins)
        assert before.isdisjoint(after.values())
        assert after.items() <= pinned_programs(pins).items()
        assert [entry["value"]["name"] for entry in nodes.a.dump("zp_pods")] == ["demo/client"]
        assert any(packet.opens for packet in capture.packets)
        assert capture.in_the_clear(SECRET) == []

"""`zproxy bpf net` against the installed bpftool: the same bytes, sentences and exit status."""

import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.bpf_objects import RETURN_TWO, Load, linked, loaded_program
from tests.support.bpftool import VIEWS, Outcome, bpftool, ours, until_same
from tests.support.netns import Namespace
from tests.support.straw import Straw
from zproxy.steering import dump_net
from zproxy.steering.dialect import Dialect
from zproxy.steering.dump_entries import View
from zproxy.steering.syscall import obj_pin

pytestmark = pytest.mark.root

SCHED_CLS, XDP, FLOW_DISSECTOR, NETFILTER = 3, 6, 22, 32
XDP_ATTACH, DISSECT, NETFILTER_ATTACH = 37, 17, 45
DRIVER_MODE, GENERIC_MODE = 4, 2

each_view = pytest.mark.parametrize("view", [*VIEWS, ("-f",)], ids=lambda view: "".join(view) or "plain")


def same_inside(pod: Namespace, *words: str) -> Outcome:
    """Compare inside the pod's namespace; both print what is attached there."""
    return pod.run(lambda: until_same(*words))


def pin_program(stack: ExitStack, pins: Path, kind: int, name: str) -> str:
    """Load a program for tc or ip, which take one by its pin."""
    fd = stack.enter_context(loaded_program(Load(kind, name=name)))
    obj_pin(fd, pins / name)
    return str(pins / name)


def tc(pod: Namespace, *words: str) -> None:
    """Run tc inside a namespace, in this mount namespace, which has the pins."""
    done = subprocess.run(["tc", "-n", pod.name, *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@each_view
@pytest.mark.parametrize("words", [("net",), ("net", "show"), ("net", "list"), ("n", "l")], ids=" ".join)
def test_a_steered_pod_is_shown_alike(straw: Straw, words: tuple[str, ...], view: tuple[str, ...]) -> None:
    assert same_inside(straw.pod, *view, *words).status == 0
    assert same_inside(straw.pod, *view, *words, *(["dev", "eth0"] if len(words) > 1 else [])).status == 0


@each_view
def test_this_namespace_is_shown_alike(view: tuple[str, ...]) -> None:
    assert until_same(*view, "net").status == 0
    assert until_same(*view, "net", "show", "dev", "lo").status == 0


@pytest.fixture
def busy(pod: Namespace, pins: Path) -> Iterator[Namespace]:
    """A namespace with a program at every hook that bpftool 7.1 knows, and filters that are no programs."""
    with ExitStack() as stack:
        sched = pin_program(stack, pins, SCHED_CLS, "zpt_sched")
        tc(pod, "qdisc", "add", "dev", "eth0", "clsact")
        direct = ("bpf", "direct-action", "object-pinned", sched)
        tc(pod, "filter", "add", "dev", "eth0", "ingress", "prio", "7", *direct)
        tc(pod, "filter", "add", "dev", "eth0", "ingress", "prio", "8", "bpf", "object-pinned", sched)
        tc(pod, "filter", "add", "dev", "eth0", "egress", *direct)
        acting = ("action", "mirred", "egress", "mirror", "dev", "eth0")
        tc(pod, "filter", "add", "dev", "eth0", "egress", "bpf", "object-pinned", sched, *acting)
        tc(pod, "filter", "add", "dev", "eth0", "egress", "u32", "match", "u32", "0", "0")
        tc(pod, "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "1")
        tc(pod, "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:1", "htb", "rate", "1gbit")
        tc(pod, "filter", "add", "dev", "eth0", "parent", "1:", *direct)
        tc(pod, "qdisc", "add", "dev", "lo", "ingress")
        tc(pod, "filter", "add", "dev", "lo", "parent", "ffff:", *direct)
        yield pod


@each_view
def test_filters_are_shown_alike(busy: Namespace, view: tuple[str, ...]) -> None:
    shown = same_inside(busy, *view, "net").stdout
    assert shown.count(b"clsact/ingress") >= 3
    assert b"act" in shown
    assert b"htb" in shown
    for device in ("eth0", "lo"):
        assert same_inside(busy, *view, "net", "show", "dev", device).stdout != shown


@each_view
def test_xdp_is_shown_alike(pod: Namespace, view: tuple[str, ...]) -> None:
    with ExitStack() as stack:

        def attach(flags: int, device: str) -> None:
            prog = stack.enter_context(loaded_program(Load(XDP, XDP_ATTACH)))
            stack.enter_context(linked(prog, socket.if_nametoindex(device), XDP_ATTACH, flags=flags))

        pod.run(lambda: attach(DRIVER_MODE, "eth0"))
        assert b"driver" in same_inside(pod, *view, "net").stdout
        pod.run(lambda: attach(GENERIC_MODE, "lo"))
        assert b"generic" in same_inside(pod, *view, "net").stdout


@each_view
def test_the_flow_dissector_is_shown_alike(pod: Namespace, view: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        prog = stack.enter_context(loaded_program(Load(FLOW_DISSECTOR, DISSECT, code=RETURN_TWO)))
        stack.enter_context(linked(prog, pod.netns.fd, DISSECT))
        shown = same_inside(pod, *view, "net").stdout
        assert b"id " in shown or b'"id"' in shown


@each_view
def test_refusals_are_worded_alike(view: tuple[str, ...]) -> None:
    for words in ("show dev nobody", "show foo lo", "list dev x y", "show dev", "show x"):
        mine, theirs = ours(*view, "net", *words.split()), bpftool(*view, "net", *words.split())
        assert (mine.stdout, mine.status) == (theirs.stdout, theirs.status)
        assert mine.status == 255
        if theirs.stderr.startswith("Error: "):
            assert mine.stderr == theirs.stderr


def test_later_releases_show_tcx_and_netfilter(straw: Straw) -> None:
    def show(view: View) -> str:
        return straw.pod.run(lambda: "".join(dump_net.show_net((), view)))

    later = Dialect((7, 3))
    with loaded_program(Load(NETFILTER, NETFILTER_ATTACH)) as prog:
        tail = struct.pack("=IIiI", 2, 1, -7, 0)
        with ExitStack() as stack:
            straw.pod.run(lambda: stack.enter_context(linked(prog, 0, NETFILTER_ATTACH, tail)))
            plain, listed = show(View(False, False, later)), json.loads(show(View(True, True, later)))[0]
    assert re.search(r"^eth0\(\d+\) tcx/ingress zp_ingress prog_id \d+ link_id \d+ $", plain, re.M)
    assert re.search(r"^\tip input prio -7 prog_id \d+$", plain, re.M)
    found = next(entry for entry in listed["tc"] if entry["name"] == "zp_ingress")
    assert (found["kind"], found["prog_flags"], found["link_flags"]) == ("tcx/ingress", [], [])
    assert {"pf": 2, "hook": 1, "prio": -7, "flags": 0}.items() <= listed["netfilter"][0].items()

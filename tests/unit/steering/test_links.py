"""Links: kept while right, updated in place, replaced when defunct, released whoever holds them."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bpf_maps import attached_to_cgroup, bpffs, program
from tests.support.netns import PREFIX, Namespace, ip, namespace
from zproxy.errors import RequirementError, SteeringError
from zproxy.steering import links, syscall
from zproxy.steering.cgroups import root_cgroup
from zproxy.steering.hooks import HOOKS, Hook, Place
from zproxy.steering.info import AttachType, ProgType, prog_info
from zproxy.steering.links import Program, Target

pytestmark = pytest.mark.root

LOOKUP = HOOKS["zp_lookup"]
CONNECT = HOOKS["zp_connect4"]


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    with bpffs(tmp_path / "bpf") as root:
        yield root


@pytest.fixture
def first() -> Iterator[Program]:
    with program(ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, "zp_lookup") as fd:
        yield Program(fd, prog_info(fd).id)


@pytest.fixture
def second() -> Iterator[Program]:
    with program(ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, "zp_lookup") as fd:
        yield Program(fd, prog_info(fd).id)


def at(ns: Namespace, run: Program) -> Target:
    return Target(
        ns.netns.key[1], ns.name, lambda: syscall.link_create(run.fd, ns.netns.fd, LOOKUP.attach_type)
    )


def test_a_link_is_made_once_and_stays(pins: Path, first: Program) -> None:
    with namespace() as ns:
        assert links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        made = links.describe(pins / "link")
        assert not links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        assert links.describe(pins / "link") == made
        assert made is not None
        assert (made.prog_id, made.target) == (first.id, ns.netns.key[1])


def test_another_program_is_swapped_in_place(pins: Path, first: Program, second: Program) -> None:
    with namespace() as ns:
        links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        before = links.describe(pins / "link")
        assert not links.ensure(pins / "link", LOOKUP, second, at(ns, second))
        after = links.describe(pins / "link")
        assert before is not None
        assert after == before._replace(prog_id=second.id)


def test_a_defunct_link_is_replaced(pins: Path, first: Program) -> None:
    with namespace() as gone:
        links.ensure(pins / "link", LOOKUP, first, at(gone, first))
    with namespace() as ns:
        assert links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        made = links.describe(pins / "link")
        assert made is not None
        assert made.target == ns.netns.key[1]


def test_refresh_swaps_and_leaves_a_missing_or_defunct_link(
    pins: Path, first: Program, second: Program
) -> None:
    links.refresh(pins / "none", LOOKUP, first)
    with namespace() as ns:
        links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        links.refresh(pins / "link", LOOKUP, second)
        refreshed = links.describe(pins / "link")
        assert refreshed is not None
        assert refreshed.prog_id == second.id
    links.refresh(pins / "link", LOOKUP, first)


def test_release_detaches_what_another_process_holds(pins: Path, first: Program) -> None:
    with namespace() as ns:
        links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        held = syscall.obj_get(pins / "link")
        assert links.release(pins / "link")
        assert not links.release(pins / "link")
        assert syscall.prog_query(ns.netns.fd, LOOKUP.attach_type)[0] == []
        os.close(held)


def test_release_of_a_defunct_link_deletes_the_pin(pins: Path, first: Program) -> None:
    with namespace() as ns:
        links.ensure(pins / "link", LOOKUP, first, at(ns, first))
    assert links.release(pins / "link")
    assert not (pins / "link").exists()


def test_a_pin_that_is_no_link_is_refused(pins: Path, first: Program) -> None:
    syscall.obj_pin(first.fd, pins / "link")
    with pytest.raises(SteeringError, match="is pinned and not a link"):
        links.release(pins / "link")
    assert (pins / "link").exists()


def test_an_exclusive_owner_of_the_hook_is_named(pins: Path) -> None:
    """Flags 0 exclude every other program at that cgroup."""
    cgroup = root_cgroup() / f"{PREFIX}exclusive"
    cgroup.mkdir()
    try:
        with (
            program(CONNECT.prog_type, CONNECT.attach_type, "zpt_owner") as owner,
            attached_to_cgroup(owner, cgroup, CONNECT.attach_type, 0),
        ):
            assert_refused(pins, cgroup, owner)
    finally:
        cgroup.rmdir()


def assert_refused(pins: Path, cgroup: Path, owner: int) -> None:
    fd = os.open(cgroup, os.O_RDONLY)
    target = Target(0, f"the cgroup {cgroup}", lambda: syscall.link_create(owner, fd, CONNECT.attach_type))
    with pytest.raises(SteeringError, match=r"attached there exclusively; `bpftool cgroup tree`"):
        links.ensure(pins / "link", CONNECT, Program(owner, prog_info(owner).id), target)
    os.close(fd)
    assert not (pins / "link").exists()


def test_a_kernel_without_tcx_is_named(pins: Path, first: Program) -> None:
    def refuse() -> int:
        raise OSError(22, "Invalid argument")

    hook = Hook("tcx_ingress", ProgType.SCHED_CLS, AttachType.TCX_INGRESS, Place.INTERFACE)
    with pytest.raises(RequirementError, match=r"TCX links need Linux 6\.6 or newer, this is "):
        links.ensure(pins / "link", hook, first, Target(1, "eth0 of a/b", refuse))


def test_a_link_that_runs_a_program_of_somebody_else_is_refused_and_kept(pins: Path, first: Program) -> None:
    with namespace() as ns, program(ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, "zpt_theirs") as theirs:
        link = syscall.link_create(theirs, ns.netns.fd, LOOKUP.attach_type)
        syscall.obj_pin(link, pins / "link")
        before = links.describe(pins / "link")
        for attempt in (
            lambda: links.refresh(pins / "link", LOOKUP, first),
            lambda: links.ensure(pins / "link", LOOKUP, first, at(ns, first)),
            lambda: links.release(pins / "link"),
            lambda: links.refuse_foreign(pins / "link"),
        ):
            with pytest.raises(SteeringError, match=r"link runs the program zpt_theirs, which is not"):
                attempt()
        assert links.describe(pins / "link") == before
        os.close(link)


def test_a_program_of_ours_that_belongs_to_another_hook_is_refused(pins: Path, first: Program) -> None:
    with namespace() as ns:
        links.ensure(pins / "link", LOOKUP, first, at(ns, first))
        other = Program(first.fd, first.id + 1)
        with pytest.raises(SteeringError, match=r"link runs zp_lookup, which zproxy attaches elsewhere"):
            links.refresh(pins / "link", CONNECT, other)
        links.refuse_foreign(pins / "link")
        assert links.release(pins / "link"), "it is ours to take away"


def test_a_program_of_another_version_has_a_name_that_this_one_does_not_know(
    pins: Path, second: Program
) -> None:
    with namespace() as ns, program(ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, "zp_elder") as fd:
        elder = Program(fd, prog_info(fd).id)
        links.ensure(pins / "link", LOOKUP, elder, at(ns, elder))
        links.refresh(pins / "link", LOOKUP, second)
        swapped = links.describe(pins / "link")
        assert swapped is not None
        assert swapped.prog_id == second.id


INGRESS = HOOKS["zp_ingress"]


@pytest.fixture
def ingress() -> Iterator[Program]:
    with program(ProgType.SCHED_CLS, AttachType.TCX_INGRESS, "zp_ingress") as fd:
        yield Program(fd, prog_info(fd).id)


@pytest.fixture
def directory(pins: Path) -> Path:
    """A pod's own: the root of a bpffs has files of the kernel's."""
    made = pins / "pod"
    made.mkdir()
    return made


def ensure_at(ns: Namespace, run: Program, pin: Path, interface: str) -> int:
    index = ns.run(lambda: socket.if_nametoindex(interface))
    target = Target(
        index, interface, lambda: ns.run(lambda: syscall.link_create(run.fd, index, INGRESS.attach_type))
    )
    links.ensure(pin, INGRESS, run, target)
    return index


def test_a_link_follows_its_interface_to_another_name(directory: Path, ingress: Program) -> None:
    with namespace() as ns:
        ip("-n", ns.name, "link", "add", "name", "a", "type", "veth", "peer", "name", "b")
        index = ensure_at(ns, ingress, directory / "tcx_ingress-a", "a")
        made = links.describe(directory / "tcx_ingress-a")
        links.follow(directory, {"tcx_ingress-a": index, "sk_lookup": 7})
        assert links.describe(directory / "tcx_ingress-a") == made, "a right name is kept"
        links.follow(directory, {"tcx_ingress-c": index, "tcx_egress-c": index})
        assert [path.name for path in directory.iterdir()] == ["tcx_ingress-c"]
        assert links.describe(directory / "tcx_ingress-c") == made
        links.follow(directory, {"tcx_ingress-d": index + 100})
        assert [path.name for path in directory.iterdir()] == ["tcx_ingress-c"], "elsewhere, so left alone"


def test_interfaces_that_exchanged_names_have_one_link_each(directory: Path, ingress: Program) -> None:
    with namespace() as ns:
        ip("-n", ns.name, "link", "add", "name", "a", "type", "veth", "peer", "name", "b")
        a = ensure_at(ns, ingress, directory / "tcx_ingress-a", "a")
        b = ensure_at(ns, ingress, directory / "tcx_ingress-b", "b")
        for before, after in (("a", "x"), ("b", "a"), ("x", "b")):
            ip("-n", ns.name, "link", "set", "dev", before, "name", after)
        links.follow(directory, {"tcx_ingress-a": b, "tcx_ingress-b": a})
        assert ensure_at(ns, ingress, directory / "tcx_ingress-a", "a") == b
        assert ensure_at(ns, ingress, directory / "tcx_ingress-b", "b") == a
        found = {path.name: links.describe(path) for path in directory.iterdir()}
        assert {name: info.target for name, info in found.items() if info} == {
            "tcx_ingress-a": b,
            "tcx_ingress-b": a,
        }

"""`zproxy bpf cgroup` against the installed bpftool: the same bytes, sentences and exit status."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.bpf_objects import Load, attached_without_link, linked, loaded_program
from tests.support.bpftool import VIEWS, assert_same, ours, until_same
from tests.support.netns import PREFIX
from zproxy.steering.cgroups import own_cgroup, root_cgroup
from zproxy.steering.hooks import HOOKS, Place

pytestmark = pytest.mark.root

CGROUP_SKB, CGROUP_DEVICE = 8, 15
INGRESS, EGRESS, DEVICE = 0, 1, 6
EXCLUSIVE, OVERRIDE, MULTI = 0, 1, 2

each_view = pytest.mark.parametrize("view", [*VIEWS, ("-f",)], ids=lambda view: "".join(view) or "plain")


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup with one below it."""
    path = root_cgroup() / f"{PREFIX}cgroup"
    (path / "inner").mkdir(parents=True)
    yield path
    (path / "inner").rmdir()
    path.rmdir()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(stack: ExitStack, path: Path, load: Load, attach_type: int, flags: int | None = None) -> None:
    """Attach by link, or with flags in the old way."""
    fd = stack.enter_context(opened(path))
    prog = stack.enter_context(loaded_program(load))
    if flags is None:
        stack.enter_context(linked(prog, fd, attach_type))
    else:
        stack.enter_context(attached_without_link(prog, fd, attach_type, flags))


@each_view
@pytest.mark.parametrize("words", [(), ("effective",), ("eff",)], ids=lambda words: "".join(words) or "own")
@pytest.mark.usefixtures("straw")
def test_our_programs_at_the_root_are_shown_alike(view: tuple[str, ...], words: tuple[str, ...]) -> None:
    root = root_cgroup()
    names = [name for name, hook in HOOKS.items() if hook.place is Place.ROOT]
    shown = until_same(*view, "cgroup", "show", str(root), *words).stdout
    assert all(name.encode() in shown for name in names)
    until_same(*view, "cgroup", "show", str(own_cgroup(root)), *words)
    until_same(*view, "cgroup", "list", f"{root}/", *words)
    until_same(*view, "c", "s", str(root), *words)


@each_view
@pytest.mark.usefixtures("straw")
def test_the_tree_is_alike(view: tuple[str, ...], group: Path) -> None:
    with ExitStack() as stack:
        attach(stack, group, Load(CGROUP_SKB, EGRESS), EGRESS)
        attach(stack, group / "inner", Load(CGROUP_SKB, INGRESS), INGRESS)
        shown = until_same(*view, "cgroup", "tree").stdout
        assert bytes(group / "inner") in shown
        assert b"zp_connect4" in shown
        for root in (root_cgroup(), group, f"{group}/", group / "inner"):
            until_same(*view, "cgroup", "tree", str(root))
            until_same(*view, "cgroup", "tree", str(root), "effective")
            until_same(*view, "c", "t", str(root), "e")


@each_view
@pytest.mark.parametrize("flags", [None, EXCLUSIVE, OVERRIDE, MULTI])
def test_how_a_program_is_attached_is_shown_alike(
    view: tuple[str, ...], group: Path, flags: int | None
) -> None:
    with ExitStack() as stack:
        attach(stack, group, Load(CGROUP_DEVICE, DEVICE, name=""), DEVICE, flags)
        attach(stack, group, Load(CGROUP_SKB, EGRESS), EGRESS)
        attach(stack, group, Load(CGROUP_SKB, EGRESS, name="zpt_second"), EGRESS, MULTI)
        for words in ((), ("effective",)):
            assert until_same(*view, "cgroup", "show", str(group), *words).status == 0
            assert until_same(*view, "cgroup", "show", str(group / "inner"), *words).status == 0
            assert until_same(*view, "cgroup", "tree", str(group), *words).status == 0


@each_view
def test_a_cgroup_without_programs_is_nothing(view: tuple[str, ...], group: Path) -> None:
    assert assert_same(*view, "cgroup", "show", str(group / "inner")).status == 0
    assert assert_same(*view, "cgroup", "tree", str(group / "inner")).status == 0


REFUSED = [
    "",
    "show",
    "list",
    "sh",
    "show /sys/fs/no/such/cgroup",
    "show /etc/passwd",
    "show /tmp",
    "show ROOT foo",
    "show ROOT effective effective",
    "show ROOT e eff",
    "tree /sys/fs/no/such/cgroup",
    "tree /usr/share",
    "tree effective",
    "tree ROOT foo",
    "tree ROOT effective e",
]


@each_view
@pytest.mark.parametrize("words", REFUSED)
def test_refusals_are_worded_alike(words: str, view: tuple[str, ...]) -> None:
    given = words.replace("ROOT", str(root_cgroup())).split()
    assert assert_same(*view, "cgroup", *given).status == 255


@each_view
def test_a_tree_below_a_file_is_empty(view: tuple[str, ...]) -> None:
    assert assert_same(*view, "cgroup", "tree", "/etc/passwd").status == 0
    assert ours("cgroup", "tree", "/etc/passwd").stdout.startswith(b"CgroupPath\nID ")

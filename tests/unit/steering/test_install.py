"""Load, adopt, upgrade, replace or refuse: what becomes of what is pinned."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, bpffs, made
from tests.support.bpf_maps import program as some_program
from tests.support.foreign import cgroup
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Arrival, Straw, dial, node_steering
from zproxy.errors import SteeringError
from zproxy.model.attach import ProbeWish
from zproxy.steering import attachment, build, links, source, syscall
from zproxy.steering.hooks import HOOKS, Place
from zproxy.steering.info import MapType, prog_info
from zproxy.steering.install import install
from zproxy.steering.layout import LAYOUT, Meta
from zproxy.steering.objects import Objects
from zproxy.steering.pins import NodePins, ensure_bpffs, entries
from zproxy.steering.steering import Steering, remove

pytestmark = pytest.mark.root

NODE = f"{PREFIX}install"


@pytest.fixture
def pins() -> Iterator[NodePins]:
    ensure_bpffs()
    yield NodePins(NODE)
    remove(NODE)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """The runs of the compiler, which happen all the same."""
    seen: list[tuple[Path, Path]] = []
    real = build.load

    def load(maps: Path, programs: Path) -> None:
        seen.append((maps, programs))
        real(maps, programs)

    monkeypatch.setattr(build, "load", load)
    return seen


def ids(objects: Objects) -> dict[str, int]:
    return {name: program.id for name, program in objects.programs.items()}


def test_the_first_start_loads_pins_and_signs(pins: NodePins, loads: list[tuple[Path, Path]]) -> None:
    objects = install(pins)
    assert objects.meta == Meta(
        LAYOUT, source.build_hash(source.flatten(source.directory()), source.cflags())
    )
    assert loads == [(pins.maps, pins.programs)]
    assert {path.name for path in entries(pins.programs)} == set(HOOKS)
    objects.close()


def test_the_second_start_adopts_and_does_not_compile(pins: NodePins, loads: list[tuple[Path, Path]]) -> None:
    first = install(pins)
    second = install(pins)
    assert (len(loads), ids(first)) == (1, ids(second))
    first.close()
    second.close()


def test_other_sources_mean_new_programs_on_the_same_maps_in_every_link(
    pins: NodePins, pod: Namespace, straw: Straw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod stays steered through an upgrade, and an open connection through it too."""
    places = ExitStack()
    kubelet, own = (places.enter_context(cgroup(f"{PREFIX}{name}")) for name in ("kubelet", "pod"))
    steering = Steering.open(NODE, probes=ProbeWish(kubelet_cgroup=str(kubelet)))
    wanted = straw.steering()._replace(cgroup=own)
    steering.attach(wanted)
    before = install(pins)
    with dial(pod, "203.0.113.9", 80) as app, Arrival.take(straw.outbound).sock as proxy:
        monkeypatch.setattr(source, "build_hash", lambda *_: "another")
        after = install(pins)
        app.sendall(b"still here")
        assert proxy.recv(64) == b"still here"
    assert set(ids(before).values()).isdisjoint(ids(after).values())
    assert after.meta.build == "another"
    assert not pins.programs_new.exists()
    assert running(pins, wanted.cookie) == {
        pin: program for name, program in ids(after).items() for pin in link_pins(name, wanted.cookie)
    }
    for name, program in ids(after).items():
        assert pinned_program(pins.programs / name) == program
    with dial(pod, "203.0.113.9", 80) as app:
        Arrival.take(straw.outbound).sock.close()
        assert app.getpeername() == ("203.0.113.9", 80)
    for opened in (before, after):
        opened.close()
    steering.close()
    places.close()


def test_a_first_start_that_was_cut_off_before_signing_begins_again(
    pins: NodePins, loads: list[tuple[Path, Path]]
) -> None:
    objects = install(pins)
    syscall.map_update(objects.maps["zp_meta"], bytes(4), Meta(0, "").encode())
    pins.programs_new.mkdir()
    objects.close()
    again = install(pins)
    assert again.meta.layout == LAYOUT
    assert loads[1:] == [(pins.maps, pins.programs)]
    again.close()


def test_unsigned_pins_with_pods_are_refused(pins: NodePins, straw: Straw) -> None:
    steering = Steering.open(NODE)
    steering.attach(straw.steering())
    objects = install(pins)
    syscall.map_update(objects.maps["zp_meta"], bytes(4), Meta(0, "").encode())
    objects.close()
    refuse(pins, r"maps was never finished, and pods are enrolled")
    steering.close()


@pytest.mark.parametrize("is_upgrade", [False, True])
def test_a_foreign_map_of_the_right_shape_is_no_map_of_ours(
    pins: NodePins, straw: Straw, monkeypatch: pytest.MonkeyPatch, *, is_upgrade: bool
) -> None:
    """Programs loaded on it would find no pod, and so let everything out."""
    steering = Steering.open(NODE)
    steering.attach(straw.steering())
    with node_steering("spare"):
        fd = syscall.obj_get(NodePins(f"{PREFIX}spare").maps / "zp_pods")
        (pins.maps / "zp_pods").unlink()
        syscall.obj_pin(fd, pins.maps / "zp_pods")
        os.close(fd)
    if is_upgrade:
        monkeypatch.setattr(source, "build_hash", lambda *_: "another")
    refuse(pins, r"maps/zp_pods is not the map that the programs use, and pods are enrolled")
    steering.close()


def test_a_map_of_another_size_and_a_program_among_the_maps_are_refused(pins: NodePins, straw: Straw) -> None:
    steering = Steering.open(NODE)
    steering.attach(straw.steering())
    (pins.maps / "zp_in").unlink()
    with made(Shape(MapType.LRU_HASH, 36, 8, 16384, "zp_in")) as fd:
        syscall.obj_pin(fd, pins.maps / "zp_in")
    refuse(pins, r"maps/zp_in is not the map that this version uses, and pods")
    (pins.maps / "zp_in").unlink()
    with some_program() as fd:
        syscall.obj_pin(fd, pins.maps / "zp_in")
    refuse(pins, r"maps/zp_in is not .*, and pods")
    (pins.maps / "zp_in").unlink()
    (pins.maps / "zp_in").mkdir()
    refuse(pins, r"maps/zp_in cannot be opened: .*, and pods")
    steering.close()


@contextmanager
def foreign_link(path: Path) -> Iterator[None]:
    """Put somebody else's link in the place of a pin of ours."""
    hook = HOOKS["zp_connect4"]
    with (
        cgroup(f"{PREFIX}theirs") as place,
        attachment.opened(place) as at,
        some_program(hook.prog_type, hook.attach_type, "zpt_theirs") as theirs,
    ):
        link = syscall.link_create(theirs, at, hook.attach_type)
        path.unlink()
        syscall.obj_pin(link, path)
        os.close(link)
        yield
        path.unlink()


def test_somebody_elses_link_under_our_name_is_refused_and_left_alone(pins: NodePins) -> None:
    """Whether what is pinned is adopted, or replaced because no pod is enrolled."""
    Steering.open(NODE).close()
    path = pins.links / "connect4"
    with foreign_link(path):
        before = links.describe(path)
        refuse(pins, r"links/connect4 runs the program zpt_theirs, which is not zproxy's; remove it")
        (pins.maps / "zp_in").unlink()
        refuse(pins, r"links/connect4 runs the program zpt_theirs, which is not zproxy's; remove it")
        with pytest.raises(SteeringError, match="zpt_theirs, which is not zproxy's"):
            remove(NODE)
        assert links.describe(path) == before
        assert before is not None
        assert before.target


def test_pins_that_others_may_change_are_not_trusted(pins: NodePins) -> None:
    Steering.open(NODE).close()
    os.chown(pins.maps, 65534, -1)
    refuse(pins, r"maps can be changed by others \(uid 65534, mode 700\).*`chown root")
    os.chown(pins.maps, 0, -1)
    pins.programs.chmod(0o770)
    refuse(pins, r"progs can be changed by others \(uid 0, mode 770\).*`chmod 700")


def test_a_read_only_bpffs_is_named(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as root:
        pins = NodePins(NODE, root)
        install(pins).close()
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        with pytest.raises(SteeringError, match="Read-only file system") as refused:
            Steering.open(NODE, pin_root=root)
        assert str(pins.directory) in str(refused.value)
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        install(pins).close()


def refuse(pins: NodePins, why: str) -> None:
    """`install` raises one sentence and changes no pin."""
    before = sorted(str(path) for path in pins.directory.rglob("*"))
    with pytest.raises(SteeringError, match=why):
        install(pins)
    assert sorted(str(path) for path in pins.directory.rglob("*")) == before


def test_an_upgrade_that_fails_leaves_everything_as_it_was(
    pins: NodePins, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = install(pins)

    def fail(maps: Path, programs: Path) -> None:
        raise SteeringError("the eBPF programs do not compile")

    with monkeypatch.context() as patch:
        patch.setattr(source, "build_hash", lambda *_: "another")
        patch.setattr(build, "load", fail)
        with pytest.raises(SteeringError, match="do not compile"):
            install(pins)
    after = install(pins)
    assert ids(after) == ids(before)
    before.close()
    after.close()


def test_a_first_start_that_fails_leaves_nothing(pins: NodePins, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(maps: Path, programs: Path) -> None:
        (maps / "zp_half").mkdir()
        raise SteeringError("the eBPF programs do not compile")

    monkeypatch.setattr(build, "load", fail)
    with pytest.raises(SteeringError, match="do not compile"):
        install(pins)
    assert not pins.directory.exists()


def test_a_missing_program_is_loaded_again(pins: NodePins, loads: list[tuple[Path, Path]]) -> None:
    install(pins).close()
    (pins.programs / "zp_lookup").unlink()
    install(pins).close()
    assert len(loads) == 2
    assert (pins.programs / "zp_lookup").exists()


def test_a_link_that_runs_another_program_is_repaired_on_adoption(pins: NodePins) -> None:
    Steering.open(NODE).close()
    objects = install(pins)
    pin = pins.links / HOOKS["zp_connect4"].pin
    link = links.open_link(pin)
    assert link is not None
    with node_steering("spare"):
        other = syscall.obj_get(NodePins(f"{PREFIX}spare").programs / "zp_connect4")
        syscall.link_update(link, other)
        install(pins).close()
    described = links.describe(pin)
    assert described is not None
    assert described.prog_id == objects.programs["zp_connect4"].id
    for fd in (link, other):
        os.close(fd)
    objects.close()


def test_unusable_pins_without_pods_are_replaced(pins: NodePins, loads: list[tuple[Path, Path]]) -> None:
    install(pins).close()
    (pins.maps / "zp_in").unlink()
    install(pins).close()
    assert len(loads) == 2
    assert (pins.maps / "zp_in").exists()


def test_unusable_pins_with_pods_are_refused_with_the_remedy(pins: NodePins, straw: Straw) -> None:
    steering = Steering.open(NODE)
    steering.attach(straw.steering())
    (pins.maps / "zp_in").unlink()
    with pytest.raises(
        SteeringError, match=r"maps/zp_in cannot be opened.*pods are enrolled.*`rm -r "
    ) as refused:
        install(pins)
    assert str(pins.directory) in str(refused.value)
    assert (pins.maps / "zp_conn").exists()
    steering.close()


def test_pods_are_seen_by_their_links_too(pins: NodePins, straw: Straw) -> None:
    """The map that says who is enrolled may be the very one that is lost."""
    steering = Steering.open(NODE)
    steering.attach(straw.steering())
    (pins.maps / "zp_pods").unlink()
    with pytest.raises(SteeringError, match=r"maps/zp_pods cannot be opened.*pods are enrolled"):
        install(pins)
    steering.close()


def test_what_is_not_zproxys_is_not_touched(pins: NodePins) -> None:
    pins.directory.mkdir(parents=True)
    with made(Shape(MapType.HASH, 4, 4, 1, "zpt_theirs")) as fd:
        syscall.obj_pin(fd, pins.directory / "theirs")
    for attempt in (lambda: install(pins), lambda: remove(NODE)):
        with pytest.raises(SteeringError, match=r"theirs is not zproxy's, so nothing in"):
            attempt()
    assert (pins.directory / "theirs").exists()
    (pins.directory / "theirs").unlink()


def link_pins(program: str, cookie: int) -> list[str]:
    pin, place = HOOKS[program].pin, HOOKS[program].place
    return {
        Place.INTERFACE: [f"{cookie}/{pin}-eth0"],
        Place.NETNS: [f"{cookie}/{pin}"],
        Place.ROOT: [f"links/{pin}", f"{cookie}/{pin}"],
    }.get(place, [f"links/{pin}"])


def running(pins: NodePins, cookie: int) -> dict[str, int]:
    """Return the program of each link by the end of its pin's path."""
    found = {}
    for path in (*entries(pins.links), *entries(pins.pod(cookie))):
        info = links.describe(path)
        assert info is not None
        found[f"{path.parent.name}/{path.name}"] = info.prog_id
    return found


def pinned_program(path: Path) -> int:
    fd = syscall.obj_get(path)
    number = prog_info(fd).id
    os.close(fd)
    return number

"""Pins are checked before they are trusted."""

import os
from collections.abc import Iterator

import pytest

from tests.support.bpf_maps import Shape, made, program
from tests.support.netns import PREFIX
from tests.support.straw import node_steering
from zproxy.errors import RequirementError
from zproxy.steering import syscall
from zproxy.steering.hooks import HOOKS
from zproxy.steering.info import MapType
from zproxy.steering.layout import LAYOUT, MAPS, Meta
from zproxy.steering.objects import Objects, Unusable, open_maps, open_programs
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering, remove

pytestmark = pytest.mark.root

NODE = f"{PREFIX}objects"


@pytest.fixture
def pins() -> Iterator[NodePins]:
    """A node's complete pins, for a test to damage."""
    Steering.open(NODE).close()
    yield NodePins(NODE)
    remove(NODE)


def test_complete_pins_are_opened_and_signed(pins: NodePins) -> None:
    objects = open_maps(pins)
    open_programs(pins, objects)
    assert (set(objects.maps), set(objects.programs)) == (set(MAPS), set(HOOKS))
    assert objects.meta.layout == LAYOUT
    objects.close()
    objects.close()


def test_a_missing_map_is_named(pins: NodePins) -> None:
    (pins.maps / "zp_orig").unlink()
    with pytest.raises(Unusable, match=r"maps/zp_orig cannot be opened: No such file"):
        open_maps(pins)


def test_a_map_of_another_shape_is_named(pins: NodePins) -> None:
    (pins.maps / "zp_in").unlink()
    with made(Shape(MapType.LRU_HASH, 36, 8, 16384, "zp_in")) as fd:
        syscall.obj_pin(fd, pins.maps / "zp_in")
    with pytest.raises(Unusable, match=r"maps/zp_in is not the map that this version uses"):
        open_maps(pins)


def test_a_program_among_the_maps_is_named(pins: NodePins) -> None:
    (pins.maps / "zp_in").unlink()
    with program() as fd:
        syscall.obj_pin(fd, pins.maps / "zp_in")
    with pytest.raises(Unusable, match=r"maps/zp_in is not"):
        open_maps(pins)


def test_a_map_too_many_is_named(pins: NodePins) -> None:
    with made(Shape(MapType.HASH, 4, 4, 1, "zp_future")) as fd:
        syscall.obj_pin(fd, pins.maps / "zp_future")
    with pytest.raises(Unusable, match=r"maps/zp_future is no map of this version"):
        open_maps(pins)


def test_another_layout_is_named(pins: NodePins) -> None:
    fd = syscall.obj_get(pins.maps / "zp_meta")
    syscall.map_update(fd, bytes(4), Meta(LAYOUT + 1, "x").encode())
    os.close(fd)
    with pytest.raises(Unusable, match=f"map layout {LAYOUT + 1}, this version has {LAYOUT}"):
        open_maps(pins)


def test_a_program_that_uses_other_maps_is_named(pins: NodePins) -> None:
    """As after a restore of a backup: the program runs, on maps that nobody writes."""
    with node_steering("foreign"):
        fd = syscall.obj_get(NodePins(f"{PREFIX}foreign").programs / "zp_connect4")
        (pins.programs / "zp_connect4").unlink()
        syscall.obj_pin(fd, pins.programs / "zp_connect4")
        os.close(fd)
    assert_unusable(pins, r"progs/zp_connect4 is not the program that this version uses")


def test_a_missing_program_and_a_map_in_its_place_are_named(pins: NodePins) -> None:
    (pins.programs / "zp_lookup").unlink()
    assert_unusable(pins, r"progs/zp_lookup cannot be opened")
    with made(Shape(MapType.HASH, 4, 4, 1, "zp_lookup")) as fd:
        syscall.obj_pin(fd, pins.programs / "zp_lookup")
    assert_unusable(pins, r"progs/zp_lookup is not")


def test_a_refused_open_is_a_requirement_and_no_damage(
    pins: NodePins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without CAP_BPF every pin looks broken; taking that for damage would throw a node's maps away."""

    def refuse(path: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(syscall, "obj_get", refuse)
    with pytest.raises(RequirementError, match="CAP_BPF"):
        open_maps(pins)


def test_elements_are_those_of_the_map(pins: NodePins) -> None:
    objects = open_maps(pins)
    spec = MAPS["zp_podip"]
    syscall.map_update(objects.maps["zp_podip"], bytes(spec.key.size), b"\1" * spec.value.size)
    assert list(objects.elements("zp_podip")) == [(bytes(spec.key.size), b"\1" * spec.value.size)]
    objects.close()


def assert_unusable(pins: NodePins, why: str) -> None:
    objects = open_maps(pins)
    with pytest.raises(Unusable, match=why):
        open_programs(pins, objects)
    objects.close()


def test_closing_twice_is_fine() -> None:
    objects = Objects()
    objects.close()
    objects.close()

"""The Python view of the C structures: round trips, equality with the sources and the kernel's BTF."""

import json
import re
import subprocess

import pytest

from tests.support.netns import PREFIX
from zproxy.model.addr import Endpoint
from zproxy.steering import source
from zproxy.steering.info import MapInfo, MapType, map_info
from zproxy.steering.layout import (
    CONN,
    COOKIE,
    INDEX,
    LAYOUT,
    MAPS,
    REASONS,
    ConnEntry,
    Meta,
    PodEntry,
    Record,
    pack_ip,
    unpack_ip,
)
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering

TYPED = [name for name, spec in MAPS.items() if spec.type is not MapType.SOCKMAP]
"""The kernel keeps no types of a sockmap."""
POD = PodEntry(202, "demo/client", "1b2f-uid", "10.244.1.5", "fd00::5", 7, 3, 15001, 15006, 15008)


@pytest.mark.parametrize(
    "pod", [POD, POD._replace(ip4=""), POD._replace(ip6=""), POD._replace(name="", uid="", since_ns=5)]
)
def test_a_pod_comes_back_as_it_was_written(pod: PodEntry) -> None:
    assert PodEntry.decode(pod.key(), pod.value()) == pod


def test_long_texts_are_cut_and_end_with_zero() -> None:
    entry = POD._replace(name="n" * 300, uid="u" * 300)
    assert PodEntry.decode(entry.key(), entry.value()) == POD._replace(name="n" * 63, uid="u" * 39)


def test_a_connection_is_decoded() -> None:
    value = CONN.pack(
        netns=202,
        started_ns=5,
        orig_ip=pack_ip("203.0.113.9"),
        orig_port=80,
        src_ip=pack_ip("10.0.0.1"),
        src_port=99,
    )
    assert ConnEntry.decode(COOKIE.pack(cookie=1), value) == ConnEntry(
        1, 202, 5, Endpoint("203.0.113.9", 80), Endpoint("10.0.0.1", 99)
    )


def test_a_connection_without_source_port_has_no_source() -> None:
    assert ConnEntry.decode(COOKIE.pack(cookie=1), CONN.pack(orig_port=80)).source is None


def test_meta_comes_back_as_it_was_written() -> None:
    assert Meta.decode(Meta(LAYOUT, "ab" * 16).encode()) == Meta(LAYOUT, "ab" * 16)


@pytest.mark.parametrize("ip", ["10.1.2.3", "2001:db8::1", "::", "fe80::1"])
def test_an_address_comes_back(ip: str) -> None:
    assert len(pack_ip(ip)) == 16
    assert unpack_ip(pack_ip(ip)) == ip


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert unpack_ip(pack_ip("::ffff:10.1.2.3")) == "10.1.2.3"


def test_a_record_refuses_a_field_that_it_has_not() -> None:
    with pytest.raises(KeyError, match="u64 has no port"):
        COOKIE.pack(port=1)


def test_reasons_are_those_of_the_header_in_its_order() -> None:
    text = (source.directory() / "lib" / "reasons.h").read_text()
    numbered = re.findall(r"ZP_(\w+) = (\d+)", text)
    assert numbered == [(name.upper(), str(number)) for number, name in enumerate((*REASONS, "reasons"))]


def test_every_reason_is_counted_somewhere() -> None:
    text = source.flatten(source.directory())
    for name in REASONS:
        assert text.count(f"ZP_{name.upper()}") > 1, name


def test_the_layout_number_is_the_headers() -> None:
    assert f"#define ZP_LAYOUT {LAYOUT}\n" in (source.directory() / "lib" / "types.h").read_text()


@pytest.mark.root
@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_what_the_kernel_has(steering: Steering, name: str) -> None:
    objects = open_maps(NodePins(f"{PREFIX}unit"))
    info = map_info(objects.maps[name])
    objects.close()
    assert MAPS[name].matches(name, info)
    assert info.btf_id or name not in TYPED, "without BTF a dump has no field names"


@pytest.mark.root
@pytest.mark.parametrize("name", TYPED)
def test_fields_lie_where_the_kernels_btf_says(steering: Steering, name: str) -> None:
    path = NodePins(f"{PREFIX}unit").maps / name
    kinds = {side: btf_types(str(path), side) for side in ("key", "value")}
    for side, record in (("key", MAPS[name].key), ("value", MAPS[name].value)):
        assert shape_of(kinds[side]) == shape_in_python(record), f"{record.name}, the {side} of {name}"


def test_a_map_of_another_shape_does_not_match() -> None:
    spec = MAPS["zp_pods"]
    good = MapInfo(1, 9, spec.key.size, spec.value.size, spec.max_entries, spec.flags, "zp_pods", 0, 0, 0)
    assert spec.matches("zp_pods", good)
    for wrong in (
        good._replace(type=9),
        good._replace(key_size=4),
        good._replace(value_size=1),
        good._replace(max_entries=1),
        good._replace(flags=0),
        good._replace(name="zp_podip"),
    ):
        assert not spec.matches("zp_pods", wrong)


def shape_in_python(record: Record) -> dict[str, int] | int:
    """Return the offsets by name, or the size of a plain number."""
    if record in (COOKIE, INDEX):
        return record.size
    return {name: offset for name, (offset, _) in record.fields.items()} | {"": record.size}


def shape_of(types: tuple[dict[int, dict[str, object]], int]) -> dict[str, int] | int:
    """Return the same of a BTF type."""
    by_id, number = types
    found = by_id[number]
    while found["kind"] == "TYPEDEF":
        found = by_id[int(str(found["type_id"]))]
    if found["kind"] == "INT":
        return int(str(found["size"]))
    members = found["members"]
    assert isinstance(members, list)
    return {member["name"]: member["bits_offset"] // 8 for member in members} | {"": int(str(found["size"]))}


def btf_types(path: str, side: str) -> tuple[dict[int, dict[str, object]], int]:
    """Return all types of a pinned map as bpftool decodes them, by id, and the id of its key's or value's."""
    everything, of_side = (dumped(path, which) for which in ("all", side))
    return {int(str(entry["id"])): entry for entry in everything}, int(str(of_side[0]["id"]))


def dumped(path: str, side: str) -> list[dict[str, object]]:
    command = ["bpftool", "--json", "btf", "dump", "map", "pinned", path, side]
    types = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["types"]
    assert isinstance(types, list)
    return types

"""Dumps without a kernel: layouts, typed values in every release's form, and walks that go wrong."""

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path

import pytest

from tests.support.btf import BtfBuilder
from zproxy.errors import SteeringError
from zproxy.steering import dump_entries
from zproxy.steering.btf import Btf
from zproxy.steering.cpus import possible_cpus
from zproxy.steering.dialect import NEWEST, Dialect
from zproxy.steering.dump import DumpError, View, dump, lookup, next_key, warning
from zproxy.steering.dump_btf import TypedText
from zproxy.steering.dump_entries import SPARE_STEPS, value_size
from zproxy.steering.dump_json import Layout, moved, text
from zproxy.steering.dump_plain import entry, failed_entry, hex_rows, inner_map_entry, per_cpu_entry
from zproxy.steering.dump_show import Details, details, header_plain
from zproxy.steering.grammar import status_of
from zproxy.steering.info import MapInfo
from zproxy.steering.maps import OpenMap

OLD = Dialect((7, 1))
Work = Callable[[Sequence[OpenMap], Sequence[str], View], Iterator[str]]
KEY_1 = ["key", "1", "0", "0", "0"]
PLAIN, JSON, PRETTY = View(False, False, OLD), View(True, False, OLD), View(True, True, OLD)


def info_of(kind: int = 1, key: int = 4, value: int = 4, entries: int = 4) -> MapInfo:
    return MapInfo(kind, 7, key, value, entries, 0, "zp_test", 0, 0, 0)


class FakeMap:
    """Stands for the kernel: elements by key, in order; a value that is an error number is raised."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, info: MapInfo, elements: Iterable[tuple[bytes, bytes | int]]
    ):
        self.elements = list(elements)
        self.opened = OpenMap(-1, info)
        self.walk_error = 0
        monkeypatch.setattr(dump_entries, "map_keys", self.keys)
        monkeypatch.setattr(dump_entries, "map_lookup", self.value)

    def keys(self, _fd: int, _size: int, limit: int) -> Iterator[bytes]:
        yield from itertools.islice((key for key, _ in self.elements), limit)
        if self.walk_error:
            raise OSError(self.walk_error, os.strerror(self.walk_error))

    def value(self, _fd: int, key: bytes, _size: int) -> bytes | None:
        found = dict(self.elements)[key]
        if isinstance(found, bytes):
            return found
        if found == errno.ENOENT:
            return None
        raise OSError(found, os.strerror(found))


def printed(chunks: Iterable[str]) -> tuple[str, DumpError | None]:
    """Return all that was yielded and the failure behind it."""
    said = StringIO()
    try:
        said.writelines(chunks)
    except DumpError as error:
        return said.getvalue(), error
    return said.getvalue(), None


def test_bytes_stand_in_rows_of_sixteen() -> None:
    assert hex_rows(bytes(range(3))) == "00 01 02"
    assert hex_rows(bytes(range(9))) == "00 01 02 03 04 05 06 07  08"
    assert hex_rows(bytes(17)).split("\n")[1] == "00"
    assert hex_rows(b"") == ""


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (4, 4, "key: 00 00 00 00  value: 00 00 00 00\n"),
        (16, 8, f"key: {hex_rows(bytes(16))}  value: {hex_rows(bytes(8))}\n"),
        (16, 9, f"key: {hex_rows(bytes(16))}\nvalue: {hex_rows(bytes(9))}\n"),
        (4, 17, f"key:\n00 00 00 00\nvalue:\n{hex_rows(bytes(17))}\n"),
        (17, 1, f"key:\n{hex_rows(bytes(17))}\nvalue:\n00\n"),
        (0, 4, "value: 00 00 00 00\n"),
    ],
)
def test_key_and_value_share_a_line_while_they_are_short(key: int, value: int, expected: str) -> None:
    assert entry(bytes(key), bytes(value)) == expected


def test_other_plain_entries() -> None:
    assert per_cpu_entry(b"\1", [b"\2", b"\3"]) == "key:\n01\nvalue (CPU 00): 02\nvalue (CPU 01): 03\n"
    assert per_cpu_entry(b"\1", [bytes(17)]).startswith("key:\n01\nvalue (CPU 00):\n00 ")
    assert failed_entry(b"\1", "<no entry>") == "key: 01  value: <no entry>\n"
    assert failed_entry(b"\1", "Operation not supported") == "key:\n01\nvalue:\nOperation not supported\n"
    assert failed_entry(bytes(16), "<no entry>") == f"key: {hex_rows(bytes(16))}\nvalue: <no entry>\n"
    assert inner_map_entry(b"\1\0\0\0", 12) == "key: 01 00 00 00  inner_map_id: 12 \n"
    assert inner_map_entry(bytes(17), 12) == f"key:\n{hex_rows(bytes(17))}\ninner_map_id:\n12 \n"


def test_objects_break_lines_before_members_and_arrays_before_their_end() -> None:
    for pretty, expected in (
        (False, '{"a":1,"b":[2,3],"c":{},"d":[]}'),
        (True, '{\n    "a": 1,\n    "b": [2,3\n    ],\n    "c": {},\n    "d": []\n}'),
    ):
        layout = Layout(pretty, OLD)
        array = layout.array([text("2"), text("3")], 1)
        members = [("a", text("1")), ("b", array), ("c", layout.object([], 1)), ("d", layout.array([], 1))]
        assert layout.object(members, 0)(b"", 0) == expected


def test_bytes_are_strings_read_at_their_place() -> None:
    piece = moved(Layout(False, OLD).hex_array(2, 0), 1)
    assert piece(b"\0\x0a\xff", 0) == '["0x0a","0xff"]'
    assert Layout(True, OLD).hex_array(0, 0)(b"", 0) == "[]"


def written(types: BtfBuilder, type_id: int, data: bytes, view: View = JSON) -> str:
    """Return `data` as a value of that type."""
    compiled = TypedText(Btf(types.blob()), view.layout, is_json=view.is_json).compile(type_id, 0)
    return compiled.piece(data, 0)


def test_a_struct_reads_as_it_is_declared() -> None:
    types = BtfBuilder()
    byte, number = types.integer("unsigned char", 1), types.integer("unsigned int", 4)
    address = types.array(byte, 4, number)
    flow = types.struct("flow", 8, [("ip", address, 0), ("port", number, 32)])
    data = b"\x0a\xf4\x01\x05\x90\x1f\0\0"
    assert written(types, flow, data) == '{"ip":[10,244,1,5],"port":8080}'
    assert written(types, flow, data, PLAIN) == '{\n    "ip": [10,244,1,5\n    ],\n    "port": 8080\n}'


@pytest.mark.parametrize(
    ("dialect", "null", "some"),
    [(OLD, "(nil)", "0xdead"), (NEWEST, '"(nil)"', '"0xdead"')],
)
def test_a_pointer_is_a_number_in_json_and_an_address_in_text(dialect: Dialect, null: str, some: str) -> None:
    types = BtfBuilder()
    pointer = types.pointer(0)
    plain = View(False, False, dialect)
    assert written(types, pointer, bytes(8), plain) == null
    assert written(types, pointer, b"\xad\xde".ljust(8, b"\0"), plain) == some
    assert written(types, pointer, b"\xad\xde".ljust(8, b"\0"), JSON) == "57005"


def test_a_float_ends_what_it_stands_in() -> None:
    types = BtfBuilder()
    number, double = types.integer("u32", 4), types.floating("double", 8)
    outer = types.struct("outer", 24, [("a", number, 0), ("b", double, 64), ("c", number, 128)])
    assert written(types, outer, bytes(24)) == '{"a":0,"b":(unsupported-kind}'
    assert written(types, outer, bytes(24), View(True, False, NEWEST)) == '{"a":0,"b":(unsupported-kind)}'


@pytest.mark.parametrize(
    ("data", "expected"), [(b"ab\0d", '"ab"'), (b"abcd", "[97,98,99,100]"), (b"\0zzz", '""')]
)
def test_characters_are_a_string_only_when_it_ends(data: bytes, expected: str) -> None:
    types = BtfBuilder()
    char = types.integer("char", 1, 1)
    assert written(types, types.array(char, 4, char), data) == expected


def test_a_member_outside_its_struct_is_refused() -> None:
    types = BtfBuilder()
    number = types.integer("u32", 4)
    wrong = types.struct("wrong", 4, [("out", number, 32)])
    bits = types.bitfields("bits", 4, [("out", number, 30, 3)])
    for type_id in (wrong, bits):
        with pytest.raises(SteeringError, match=r"member out of .* lies outside its 4 bytes"):
            written(types, type_id, bytes(4))


def test_a_variable_outside_its_section_is_refused() -> None:
    types = BtfBuilder()
    variable = types.variable("out", types.integer("u32", 4))
    section = types.section(".data", 4, [(variable, 2, 4)])
    with pytest.raises(SteeringError, match="outside its 4 bytes"):
        written(types, section, bytes(4))


def test_a_struct_inside_itself_is_refused() -> None:
    types = BtfBuilder()
    types.struct("self", 0, [("again", 1, 0)])
    with pytest.raises(SteeringError, match="nests more than 32"):
        written(types, 1, b"")


@pytest.mark.parametrize("encoding", [3, 8])
def test_an_integer_of_unknown_meaning_is_refused(encoding: int) -> None:
    types = BtfBuilder()
    with pytest.raises(SteeringError, match=f"encoding {encoding}, which no program here knows"):
        written(types, types.integer("odd", 4, encoding), bytes(4))


def test_what_has_no_size_is_refused() -> None:
    types = BtfBuilder()
    forward = types.forward("later")
    for type_id in (forward, 0):
        with pytest.raises(SteeringError, match="has no size"):
            written(types, type_id, b"")


def test_an_empty_slot_is_shown_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    elements: list[tuple[bytes, bytes | int]] = [(b"\0\0\0\0", errno.ENOENT), (b"\1\0\0\0", b"\5\0\0\0")]
    fake = FakeMap(monkeypatch, info_of(kind=15), elements)
    said, failure = printed(dump([fake.opened], PLAIN))
    assert (
        said == "key: 00 00 00 00  value: <no entry>\nkey: 01 00 00 00  value: 05 00 00 00\nFound 1 element\n"
    )
    assert failure is None
    error = '{"key":["0x00","0x00","0x00","0x00"],"value":{"error":"No such file or directory"}}'
    said, _ = printed(dump([fake.opened], JSON))
    assert said.startswith(f"[{error},{{")
    assert said.endswith("]\n")


@pytest.mark.parametrize("kind", [3, 12, 13])
def test_an_empty_slot_of_programs_or_maps_is_passed_over(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    fake = FakeMap(monkeypatch, info_of(kind), [(b"\0\0\0\0", errno.ENOENT)])
    assert printed(dump([fake.opened], PLAIN))[0] == "Found 0 elements\n"
    assert printed(dump([fake.opened], JSON))[0] == "[]\n"


def test_a_value_that_cannot_be_read_is_shown_by_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMap(
        monkeypatch, info_of(kind=20), [(b"\0\0\0\0", errno.ENOSPC), (b"\1\0\0\0", errno.EOPNOTSUPP)]
    )
    said, _ = printed(dump([fake.opened], PLAIN))
    assert said.startswith(
        "key: 00 00 00 00  value: <cannot read>\nkey:\n01 00 00 00\nvalue:\nOperation not supp"
    )


def test_a_key_that_vanishes_stands_between_typed_elements_without_a_comma(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    types = BtfBuilder()
    number = types.integer("u32", 4)
    typed = info_of()._replace(btf_id=9, btf_key_type_id=number, btf_value_type_id=number)
    monkeypatch.setattr(dump_entries, "load", lambda _: Btf(types.blob()))
    keys = [bytes([n, 0, 0, 0]) for n in range(3)]
    fake = FakeMap(monkeypatch, typed, [(keys[0], keys[0]), (keys[1], errno.ENOENT), (keys[2], keys[2])])
    said, _ = printed(dump([fake.opened], PLAIN))
    first = '[{\n        "key": 0,\n        "value": 0\n    }'
    second = ',{\n        "key": 2,\n        "value": 2\n    }\n]\n'
    assert said == f"{first}key: 01 00 00 00  value: <no entry>\n{second}"


@pytest.mark.parametrize(
    ("view", "end"), [(PLAIN, "Found 1032 elements\n"), (JSON, "]\n"), (PRETTY, "\n]\n")]
)
def test_a_walk_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch, view: View, end: str) -> None:
    fake = FakeMap(monkeypatch, info_of(entries=4), [])
    monkeypatch.setattr(dump_entries, "map_keys", lambda *_: itertools.cycle([b"\0\0\0\0", b"\1\0\0\0"]))
    monkeypatch.setattr(dump_entries, "map_lookup", lambda *_: bytes(4))
    said, failure = printed(dump([fake.opened], view))
    assert said.endswith(end)
    assert said.count("key") == 2 * 4 + SPARE_STEPS
    assert "map 7 changes faster than it can be read" in str(failure)


@pytest.mark.parametrize(("view", "said"), [(PLAIN, "Found 0 elements\n"), (JSON, "[]\n"), (PRETTY, "[]\n")])
def test_a_map_that_cannot_be_walked_fails_without_words(
    monkeypatch: pytest.MonkeyPatch, view: View, said: str
) -> None:
    fake = FakeMap(monkeypatch, info_of(), [])
    fake.walk_error = errno.EINVAL
    output, failure = printed(dump([fake.opened], view))
    assert output == said
    assert (str(failure), failure.status if failure else 0) == ("", 234)


def test_a_failed_walk_ends_the_list_of_maps_with_its_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMap(monkeypatch, info_of(), [])
    fake.walk_error = errno.EINVAL
    output, failure = printed(dump([fake.opened, fake.opened], JSON))
    assert output == '[{"id":7,"type":"hash","name":"zp_test","flags":0,"elements":[]}]\n'
    assert failure is not None


def test_a_key_that_is_not_there_is_said_and_status_254(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMap(monkeypatch, info_of(), [(b"\1\0\0\0", errno.ENOENT)])
    output, failure = printed(lookup([fake.opened], KEY_1, PLAIN))
    assert output == "key:\n01 00 00 00\n\nNot found\n"
    assert (str(failure), failure.status if failure else 0) == ("", 254)
    assert printed(lookup([fake.opened], KEY_1, JSON))[0] == "null\n"


def test_a_failed_lookup_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMap(monkeypatch, info_of(), [(b"\1\0\0\0", errno.EOPNOTSUPP)])
    output, failure = printed(lookup([fake.opened], KEY_1, PLAIN))
    assert (output, str(failure)) == ("", "lookup failed: Operation not supported")
    assert failure is not None
    assert failure.status == -errno.EOPNOTSUPP & 0xFF


@pytest.mark.parametrize("work", [lookup, next_key])
def test_a_key_is_looked_for_in_one_map_only(work: Work) -> None:
    one = OpenMap(-1, info_of())
    with pytest.raises(DumpError, match=r"^several maps match this handle$"):
        list(work([one, one], [], PLAIN))
    with pytest.raises(DumpError, match=r"^$"):
        list(work([], [], PLAIN))


def test_later_releases_show_the_inner_map_of_a_map_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMap(monkeypatch, info_of(kind=12), [(b"\1\0\0\0", b"\x0c\0\0\0")])
    newer = View(False, False, NEWEST)
    assert printed(dump([fake.opened], newer))[0] == "key: 01 00 00 00  inner_map_id: 12 \nFound 1 element\n"
    said, _ = printed(dump([fake.opened], newer._replace(is_json=True)))
    assert said.endswith('"value":["0x0c","0x00","0x00","0x00"],"inner_map_id":12}]\n')


def test_types_that_are_gone_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: int) -> Btf:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(dump_entries, "load", gone)
    fake = FakeMap(monkeypatch, info_of()._replace(btf_id=9, btf_value_type_id=1), [])
    assert str(printed(dump([fake.opened], JSON))[1]) == "failed to get btf"


def test_a_per_cpu_value_takes_a_slot_of_eights_for_each_cpu() -> None:
    assert value_size(info_of(kind=6, value=5)) == 8 * possible_cpus()
    assert value_size(info_of(kind=1, value=5)) == 5


def test_the_status_is_the_negative_errno_in_eight_bits() -> None:
    assert [status_of(OSError(code, "")) for code in (2, 22, 524)] == [254, 234, 244]


def test_only_a_reuseport_array_of_narrow_values_is_warned_of() -> None:
    assert warning(info_of(kind=20, value=8), OLD) is None
    assert warning(info_of(kind=1), OLD) is None
    expected = "Warning: cannot read values from reuseport_sockarray map with value_size != 8"
    assert warning(info_of(kind=20, value=4), OLD) == expected


def test_details_come_from_the_descriptor(tmp_path: Path) -> None:
    lines = (
        "pos:\t0",
        "map_type:\t3",
        "memlock:\t4096",
        "frozen:\t1",
        "owner_prog_type:\t18",
        "owner_jited:\t0",
    )
    (tmp_path / "5").write_text("\n".join(lines))
    assert details(5, tmp_path) == Details("4096", True, 18, False)
    (tmp_path / "6").write_text("pos:\t0\n")
    assert details(6, tmp_path) == Details(None, False, None, None)


def test_an_unknown_type_is_its_number() -> None:
    assert header_plain(info_of(kind=77)._replace(name=""), OLD) == "7: type 77  flags 0x0\n"

"""Programs as later releases describe them, on hardware, and when they were loaded."""

import json
import os
from collections.abc import Iterator

import pytest

from zproxy.steering import dump_prog
from zproxy.steering.dialect import NEWEST, Dialect
from zproxy.steering.dump_entries import View
from zproxy.steering.dump_prog import loaded_at, show_progs
from zproxy.steering.grammar import DumpError
from zproxy.steering.handles_pins import Pins
from zproxy.steering.info import Device, ProgInfo
from zproxy.steering.progs import OpenProg

OLD = Dialect((7, 1))
SECOND = 1_000_000_000


def info_of(**changes: object) -> ProgInfo:
    whole = ProgInfo(6, 7, "00112233445566ff", 23, 16, 0, 0, (), "zpt", True, 0, 0, 0)
    return whole._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def fd() -> Iterator[int]:
    """Any descriptor: its fdinfo tells no memory."""
    number = os.open("/dev/null", os.O_RDONLY)
    yield number
    os.close(number)


def shown(fd: int, info: ProgInfo, view: View) -> str:
    return "".join(show_progs([OpenProg(fd, info)], view, Pins()))


def test_what_a_program_lacks_is_left_out(fd: int) -> None:
    info = info_of(name="", jited_size=0, is_gpl=False)
    assert (
        shown(fd, info, View(False, False, OLD)) == "7: xdp  tag 00112233445566ff\n\txlated 16B  not jited\n"
    )
    assert json.loads(shown(fd, info, View(True, False, OLD))) == {
        "id": 7,
        "type": "xdp",
        "tag": "00112233445566ff",
        "gpl_compatible": False,
        "bytes_xlated": 16,
        "jited": False,
    }


def test_counters_follow_the_first_lines_words(fd: int) -> None:
    info = info_of(type=99, run_time_ns=5, run_count=2, missed_count=1, map_ids=(3, 4), btf_id=8)
    assert shown(fd, info, View(False, False, OLD)) == (
        "7: type 99  name zpt  tag 00112233445566ff  gpl run_time_ns 5 run_cnt 2 recursion_misses 1\n"
        "\txlated 16B  jited 23B  map_ids 3,4\n\tbtf_id 8\n"
    )
    members = json.loads(shown(fd, info, View(True, True, OLD)))
    assert (members["type"], members["run_cnt"], members["recursion_misses"]) == (99, 2, 1)
    assert (members["map_ids"], members["btf_id"]) == ([3, 4], 8)


def test_later_releases_say_that_no_program_is_orphaned(fd: int) -> None:
    assert "orphaned" not in json.loads(shown(fd, info_of(), View(True, False, Dialect((7, 3)))))
    assert json.loads(shown(fd, info_of(), View(True, False, Dialect((7, 4)))))["orphaned"] is False
    assert "orphaned" not in shown(fd, info_of(), View(False, False, NEWEST))


def test_a_program_on_hardware_names_its_interface(fd: int) -> None:
    here = dump_prog.NETNS.stat()
    for device, plain, extra in (
        (Device(1, here.st_dev, here.st_ino), "lo", {"ifname": "lo"}),
        (Device(1, 0, 9), "ifindex 1 ns_dev 0 ns_ino 9", {}),
        (
            Device(2_000_000_000, here.st_dev, here.st_ino),
            f"ifindex 2000000000 ns_dev {here.st_dev} ns_ino {here.st_ino}",
            {},
        ),
    ):
        info = info_of(device=device)
        first = shown(fd, info, View(False, False, OLD)).splitlines()[0]
        assert first == f"7: xdp  name zpt  tag 00112233445566ff  offloaded_to {plain}  gpl"
        numbers = dict(zip(("ifindex", "ns_dev", "ns_inode"), device, strict=True))
        assert json.loads(shown(fd, info, View(True, False, OLD)))["dev"] == numbers | extra


@pytest.mark.parametrize(
    ("boot", "real", "now", "seconds"),
    [
        (5 * SECOND, 1000 * SECOND, 10 * SECOND, 995),
        (5 * SECOND + 600, 1000 * SECOND + 500, 10 * SECOND, 995),
        (6 * SECOND - 1, 1000 * SECOND + 1, 10 * SECOND, 996),
        (5 * SECOND, 1000 * SECOND, 10 * SECOND + 1, 994),
        (1, 1000 * SECOND, 10 * SECOND + 2, 990 + ((1 << 64) - 1) // SECOND),
    ],
)
def test_the_time_of_loading_is_rounded_as_bpftool_does(boot: int, real: int, now: int, seconds: int) -> None:
    assert loaded_at(boot, real_ns=real, now_ns=now) == seconds


def test_nothing_to_show_is_a_failure_without_words() -> None:
    with pytest.raises(DumpError, match=r"^$"):
        list(show_progs([], View(True, False, OLD), Pins()))

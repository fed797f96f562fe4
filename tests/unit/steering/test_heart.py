"""The daemon's sign of life in the kernel."""

import pytest

from tests.support.bpf_maps import Shape, made
from zproxy.steering import syscall
from zproxy.steering.heart import BEAT_S, Heart
from zproxy.steering.info import MapType
from zproxy.steering.layout import HEART, INDEX
from zproxy.steering.source import directory

pytestmark = pytest.mark.root


def test_a_beat_is_the_time_and_a_stop_is_zero() -> None:
    with made(Shape(MapType.ARRAY, 4, HEART.size, 1, "zpt_heart")) as fd:
        heart = Heart(fd, lambda: 77)
        heart.beat()
        assert syscall.map_lookup(fd, INDEX.pack(), HEART.size) == HEART.pack(beat_ns=77)
        heart.stop()
        assert syscall.map_lookup(fd, INDEX.pack(), HEART.size) == HEART.pack(beat_ns=0)


def test_the_programs_wait_for_three_beats() -> None:
    assert f"#define ZP_HEART_NS {int(3 * BEAT_S * 1e9)}ull" in (directory() / "lib/config.h").read_text()

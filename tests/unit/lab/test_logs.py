"""The end of a log, and access-log lines taken apart."""

import subprocess
import sys
from pathlib import Path

import pytest

from zproxy.errors import ZproxyError
from zproxy.lab.logs import AccessLine, Tail, log_of

LINE = (
    "2026-08-20T10:11:12.345678Z\terror\taccess\tconnection complete\tsrc.addr=10.0.1.5:41000 "
    'src.identity="spiffe://cluster.local/ns/demo/sa/client" dst.hbone_addr=10.0.2.7:8080 '
    'bytes_sent=11 duration="13ms" error="it said \\"no\\" and=went"'
)


def test_an_access_line_is_taken_apart_into_its_fields() -> None:
    line = AccessLine.of(LINE)
    assert line is not None
    assert line.fields == {
        "src.addr": "10.0.1.5:41000",
        "src.identity": "spiffe://cluster.local/ns/demo/sa/client",
        "dst.hbone_addr": "10.0.2.7:8080",
        "bytes_sent": "11",
        "duration": "13ms",
        "error": 'it said "no" and=went',
    }
    assert line.text.startswith("access\tconnection complete\tsrc.addr=10.0.1.5:41000 ")
    assert line.get("dst.service") == ""


@pytest.mark.parametrize("text", ["", "Traceback", "2026-08-20T10:11:12.3Z\tinfo\tzproxy.node\taccess\tx"])
def test_another_line_is_none(text: str) -> None:
    assert AccessLine.of(text) is None


def test_a_tail_has_what_came_since_and_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    tail = Tail(path)
    assert tail.lines() == []
    with path.open("a") as log:
        log.write("one\ntwo\nthr")
    assert tail.lines() == ["one", "two"]


def test_lines_are_waited_for_and_one_that_does_not_come_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    tail = Tail(path)
    path.write_text("first: a\nsecond: b\nsecond: c\n")
    assert tail.wait(("second", "first"), 1.0) == ["second: b", "first: a"]
    with pytest.raises(ZproxyError, match="has no line with 'third'"):
        tail.wait(("first", "third"), 0.0)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_log_is_found_where_it_is_a_file(is_file: bool, tmp_path: Path) -> None:
    where = tmp_path / "log"
    with where.open("wb") as file:
        argv = [sys.executable, "-c", "print('x', flush=True); input()"]
        out = file if is_file else subprocess.PIPE
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out) as process:
            found = log_of(process.pid)
            process.communicate(b"\n", timeout=10)
    assert (found is not None) == is_file

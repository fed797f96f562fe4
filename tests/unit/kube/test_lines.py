"""Lines out of chunks: the same ones however they are cut, and none without end."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.kube.lines import LineSplitter, LineTooLong


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line)), st.lists(st.integers(0, 300)))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    ends = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    splitter = LineSplitter()
    found = [line for begin, end in itertools.pairwise(ends) for line in splitter.feed(whole[begin:end])]
    assert found == [line for line in lines if line.strip()]


def test_the_beginning_of_a_line_is_no_line() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b'{"type"') == []
    assert splitter.feed(b": 1}") == []
    assert splitter.feed(b"\r\n") == [b'{"type": 1}\r']


def test_a_line_without_end_is_an_error() -> None:
    splitter = LineSplitter(max_line=10)
    assert splitter.feed(b"12345\n1234567") == [b"12345"]
    with pytest.raises(LineTooLong):
        splitter.feed(b"8901")

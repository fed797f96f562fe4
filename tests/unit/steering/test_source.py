"""Flattening: what the compiler sees, and that its messages still name file and line."""

from pathlib import Path

import pytest

from zproxy.steering import source
from zproxy.steering.source import CFLAGS, UNITS, build_hash, cflags, directory, flatten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "inner.h").write_text("inner\n")
    (tmp_path / "lib" / "outer.h").write_text('#include "inner.h"\nouter\n')
    (tmp_path / "one.c").write_text('first\n#include "lib/outer.h"\n#include "lib/inner.h"\nlast\n')
    (tmp_path / "two.c").write_text('#include "lib/outer.h"\nsecond\n')
    return tmp_path


def test_an_include_is_replaced_once_and_lines_stay_true(folder: Path) -> None:
    assert flatten(folder, ("one.c", "two.c")).splitlines() == [
        '#line 1 "one.c"',
        "first",
        '#line 1 "lib/outer.h"',
        '#line 1 "lib/inner.h"',
        "inner",
        '#line 2 "lib/outer.h"',
        "outer",
        '#line 3 "one.c"',
        '#line 4 "one.c"',
        "last",
        '#line 1 "two.c"',
        '#line 2 "two.c"',
        "second",
    ]


def test_system_includes_are_the_compilers(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("#include <linux/bpf.h>\n")
    assert "#include <linux/bpf.h>" in flatten(tmp_path, ("a.c",))


def test_every_program_file_is_a_unit() -> None:
    assert sorted(path.name for path in directory().glob("*.c")) == sorted(UNITS)


def test_every_source_names_its_licence() -> None:
    for path in (*directory().glob("*.c"), *directory().glob("lib/*.h")):
        first = path.read_text().splitlines()[0]
        assert "SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)" in first, path


def test_the_hash_follows_text_and_flags() -> None:
    base = build_hash("text", CFLAGS)
    assert len(base) == 32
    assert len({base, build_hash("Text", CFLAGS), build_hash("text", (*CFLAGS, "-DX"))}) == 3
    assert build_hash("text", CFLAGS) == base


def test_flags_follow_what_the_kernel_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "has_tc_cookie", lambda: False)
    assert cflags(tmp_path / "none") == CFLAGS
    assert cflags(tmp_path) == (*CFLAGS, "-DZP_HAS_MPTCP")
    monkeypatch.setattr(source, "has_tc_cookie", lambda: True)
    assert cflags(tmp_path / "none") == (*CFLAGS, "-DZP_HAS_TC_COOKIE")
    assert cflags(tmp_path) == (*CFLAGS, "-DZP_HAS_MPTCP", "-DZP_HAS_TC_COOKIE")

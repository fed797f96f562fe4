"""Releases of bpftool: what each names and how it writes."""

from pathlib import Path

import pytest

from zproxy.steering import dialect
from zproxy.steering.dialect import NEWEST, Dialect, parse

DEBIAN_12 = Dialect((7, 1))
DEBIAN_13 = Dialect((7, 5))


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("bpftool v7.1.0\nusing libbpf v1.1\nfeatures: libbpf_strict\n", (7, 1)),
        ("/usr/lib/linux-tools/6.8.0-31-generic/bpftool v7.4.0\nusing libbpf v1.4\n", (7, 4)),
        ("WARNING: bpftool not found for kernel 6.8.0\n", NEWEST.version),
        ("", NEWEST.version),
    ],
)
def test_the_version_is_read_from_the_first_line(answer: str, version: tuple[int, int]) -> None:
    assert parse(answer) == Dialect(version)


@pytest.mark.parametrize(
    ("number", "old", "new"),
    [
        (0, "unspec", "unspec"),
        (1, "hash", "hash"),
        (15, "sockmap", "sockmap"),
        (24, "sk_storage", "sk_storage"),
        (31, "user_ringbuf", "user_ringbuf"),
        (32, None, "cgrp_storage"),
        (33, None, "arena"),
        (34, None, None),
        (99, None, None),
    ],
)
def test_map_types_are_named_since_some_release(number: int, old: str | None, new: str | None) -> None:
    assert (DEBIAN_12.map_type(number), DEBIAN_13.map_type(number)) == (old, new)


def test_program_types_are_named_since_some_release() -> None:
    assert [DEBIAN_12.prog_type(number) for number in (1, 18, 30, 31, 32)] == [
        "socket_filter",
        "cgroup_sock_addr",
        "sk_lookup",
        "syscall",
        None,
    ]
    assert DEBIAN_13.prog_type(32) == "netfilter"


def test_link_and_attach_types_are_named_since_some_release() -> None:
    assert [DEBIAN_12.link_type(number) for number in (3, 9, 11, 14)] == ["cgroup", "struct_ops", None, None]
    assert [DEBIAN_13.link_type(number) for number in (11, 14, 99)] == ["tcx", "sockmap", None]
    assert [DEBIAN_12.attach_type(number) for number in (10, 43, 46)] == [
        "cgroup_inet4_connect",
        "lsm_cgroup",
        None,
    ]
    assert [DEBIAN_13.attach_type(number) for number in (46, 57)] == ["tcx_ingress", None]


def test_a_cgroup_is_asked_for_every_type_until_7_6_and_then_for_those_that_it_can_have() -> None:
    assert list(DEBIAN_12.cgroup_attach_types) == list(range(44))
    assert list(DEBIAN_13.cgroup_attach_types) == list(range(57))
    asked = [NEWEST.attach_type(number) for number in Dialect((7, 6)).cgroup_attach_types]
    assert asked[:4] == [
        "cgroup_inet_ingress",
        "cgroup_inet_egress",
        "cgroup_inet_sock_create",
        "cgroup_inet_sock_release",
    ]
    assert len(asked) == len(set(asked)) == 29
    assert all(name and ("cgroup" in name) for name in asked)


def test_the_id_of_a_missing_link_was_signed_before_7_6() -> None:
    assert DEBIAN_12.missing_link(0xFFFFFFFA) == "failed to get link with ID -6"
    assert DEBIAN_12.missing_link(7) == "failed to get link with ID 7"
    assert NEWEST.missing_link(0xFFFFFFFA) == "failed to get link with ID 4294967290"


def test_a_backslash_was_a_newline_before_7_2() -> None:
    assert DEBIAN_12.quote("a\"\\\t\n\r\f\b'é") == '"a\\"\\n\\t\\n\\r\\f\\b\'é"'
    assert DEBIAN_13.quote("\\") == '"\\\\"'


def test_later_releases_quote_pointers_and_show_inner_maps() -> None:
    assert (DEBIAN_12.quotes_pointers, DEBIAN_12.shows_inner_map_ids) == (False, False)
    assert (DEBIAN_13.quotes_pointers, DEBIAN_13.shows_inner_map_ids) == (True, True)
    assert (DEBIAN_13.unsupported_kind, NEWEST.unsupported_kind) == (
        "(unsupported-kind",
        "(unsupported-kind)",
    )


def fake_bpftool(folder: Path, script: str) -> None:
    program = folder / "bpftool"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_the_installed_release_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dialect.installed() == NEWEST
    fake_bpftool(tmp_path, "echo 'bpftool v7.2.0'")
    assert dialect.installed() == Dialect((7, 2))
    fake_bpftool(tmp_path, "exit 1")
    assert dialect.installed() == NEWEST

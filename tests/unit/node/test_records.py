"""The record of enrolled pods: whole or not at all, and readable by the next daemon."""

import os
from pathlib import Path

import pytest

from zproxy.node.records import Origin, Record, Records

CLIENT = Record("demo/client", "/run/netns/demo-client", 7, None, {"net/ipv4/tcp_tw_reuse": "2"})
SERVER = Record("demo/server", "/proc/1234/ns/net", 8, "other", {}, origin=Origin("8d1f", "5a9dc0"))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "node" / "pods")


def test_what_was_saved_is_loaded_by_the_next_daemon(records: Records, tmp_path: Path) -> None:
    records.save(SERVER)
    records.save(CLIENT)
    assert list(Records(tmp_path / "node" / "pods").load()) == [CLIENT, SERVER]


def test_one_pod_s_record_is_found_by_its_name(records: Records) -> None:
    records.save(CLIENT)
    assert records.get("demo/client") == CLIENT
    assert records.get("demo/server") is None


def test_saving_again_replaces(records: Records) -> None:
    records.save(CLIENT)
    records.save(CLIENT._replace(cookie=9))
    assert [record.cookie for record in records.load()] == [9]


def test_removing_is_idempotent(records: Records) -> None:
    records.save(CLIENT)
    records.save(SERVER)
    records.remove("demo/client")
    records.remove("demo/client")
    assert list(records.load()) == [SERVER]


def test_records_may_be_removed_while_they_are_loaded(records: Records) -> None:
    records.save(CLIENT)
    records.save(SERVER)
    for record in records.load():
        records.remove(record.pod)
    assert list(records.load()) == []


def test_only_root_reads_them(records: Records, tmp_path: Path) -> None:
    assert not (tmp_path / "node").exists(), "who only looks makes no directory"
    records.save(CLIENT)
    assert (tmp_path / "node" / "pods").stat().st_mode & 0o777 == 0o700


def test_a_write_that_breaks_off_leaves_the_former_record(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.save(CLIENT)

    def dies(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(OSError, match="No space"):
            records.save(CLIENT._replace(cookie=9))
    assert list(records.load()) == [CLIENT]
    records.save(CLIENT._replace(cookie=10))
    assert [record.cookie for record in records.load()] == [10]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"demo/client"', '{"pod": "demo/x"}', '{"a": 1}'])
def test_what_is_no_record_is_removed(records: Records, tmp_path: Path, text: str) -> None:
    records.save(CLIENT)
    damaged = tmp_path / "node" / "pods" / "demo_x.json"
    damaged.write_text(text)
    assert records.get("demo/x") is None
    assert list(records.load()) == [CLIENT]
    assert not damaged.exists()


def test_looking_changes_nothing(records: Records, tmp_path: Path) -> None:
    records.save(CLIENT)
    damaged = tmp_path / "node" / "pods" / "demo_x.json"
    damaged.write_text("{")
    assert list(records.peek()) == [CLIENT]
    assert damaged.exists()


def test_drafts_and_damaged_records_are_its_files_and_nothing_else(records: Records, tmp_path: Path) -> None:
    records.save(CLIENT)
    for name in ("demo_x.json", "demo_y.new", "stranger"):
        (tmp_path / "node" / "pods" / name).write_text("{")
    assert [path.name for path in records.files()] == ["demo_client.json", "demo_x.json", "demo_y.new"]


def test_what_istio_cni_handed_over_is_kept_with_its_uid(records: Records) -> None:
    handed = CLIENT._replace(service_account="sa", handed="uid-0", trust_domain="corp.example")
    records.save(handed)
    assert list(records.load()) == [handed]

"""`zproxy doctor`: one row for each requirement, and a status that a script can use."""

import json

import pytest
from click.testing import CliRunner, Result
from zproxy_cli import doctor
from zproxy_cli.requirements import FAILED, OK, WARNING, Check

CHECKS = [
    Check("kernel", OK, "6.12"),
    Check("open files", WARNING, "4096 bound the connections", "raise the limit"),
]


def run(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *words: str) -> Result:
    monkeypatch.setattr(doctor, "gather", lambda: None)
    monkeypatch.setattr(doctor, "judge", lambda _: checks)
    return CliRunner().invoke(doctor.command, words)


def test_the_table_has_a_row_for_each_requirement(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, CHECKS)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "CHECK        STATUS    DETAIL                       REMEDY",
        "kernel       ok        6.12                         -",
        "open files   warning   4096 bound the connections   raise the limit",
    ]


def test_the_status_is_1_when_a_requirement_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Check("bcc", FAILED, "none", "install it")
    result = run(monkeypatch, [*CHECKS, failed], "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[2] == failed._asdict()


@pytest.mark.root
def test_it_runs_on_this_machine() -> None:
    result = CliRunner().invoke(doctor.command, ["-o", "json"])
    rows = json.loads(result.stdout)
    assert [row for row in rows if row["status"] == FAILED] == []
    assert result.exit_code == 0

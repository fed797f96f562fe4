"""`zproxy prove`: what is printed, and with which exit status."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from zproxy_cli.main import zproxy

from tests.unit.lab.healthy import healthy, server_pod
from zproxy.errors import EnrollError
from zproxy.lab import prove as lab_prove
from zproxy.lab.observation import Observation

Asked = list[tuple[str, str, tuple[int, ...]]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Observation], Asked]:
    """Let the run find a given observation; return what was asked for."""

    def install(observation: Observation) -> Asked:
        asked: Asked = []

        def observe(source: str, target: str, ports: tuple[int, ...], daemons: Any) -> Observation:
            asked.append((source, target, ports))
            return observation

        monkeypatch.setattr(lab_prove, "observe", observe)
        monkeypatch.setattr(lab_prove, "running_nodes", list)
        return asked

    return install


def run(*words: str) -> Result:
    return CliRunner().invoke(zproxy, ["prove", *words], prog_name="zproxy")


def test_claims_that_hold_are_status_0(seen: Callable[[Observation], Asked]) -> None:
    asked = seen(healthy())
    result = run("demo/client", "demo/server")
    assert result.exit_code == 0
    assert result.stdout.count("  => holds\n") == 6
    assert result.stdout.endswith("All 6 claims hold for demo/client and demo/server.\n")
    assert asked == [("demo/client", "demo/server", (8080,))]


def test_a_claim_that_does_not_hold_is_status_1_and_named(seen: Callable[[Observation], Asked]) -> None:
    seen(healthy(target=server_pod(listeners=())))
    result = run("demo/client", "demo/server")
    assert result.exit_code == 1
    assert "against it: nothing listens on 15008 inside demo/server" in result.stdout
    assert result.stderr == "Error: claim 1 and 5 of 6 do not hold\n"


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_machines_get_every_claim_with_its_evidence(
    seen: Callable[[Observation], Asked], output: str, read: Callable[[str], Any]
) -> None:
    seen(healthy())
    rows = read(run("demo/client", "demo/server", "-o", output).stdout)
    assert [row["claim"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["holds"] and row["evidence"] and not row["against"] for row in rows)


def test_ports_are_passed_on_once_each(seen: Callable[[Observation], Asked]) -> None:
    asked = seen(healthy())
    run("demo/client", "demo/server", "--port", "9000", "--port", "9001", "--port", "9000")
    assert asked[0][2] == (9000, 9001)


def test_a_port_of_our_own_is_wrong_usage(seen: Callable[[Observation], Asked]) -> None:
    asked = seen(healthy())
    result = run("demo/client", "demo/server", "--port", "15008")
    assert (result.exit_code, asked) == (2, [])
    assert "15008 is a port of zproxy's own" in result.stderr


def test_a_pod_that_is_not_enrolled_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def observe(*_: Any) -> Observation:
        raise EnrollError("demo/x is not enrolled on node-a")

    monkeypatch.setattr(lab_prove, "observe", observe)
    result = run("demo/x", "demo/server")
    assert (result.exit_code, result.stderr) == (1, "Error: demo/x is not enrolled on node-a\n")

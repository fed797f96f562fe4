"""`zproxy cni`: options become the plugin's configuration, steps a table, and bad files a sentence."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import StartDaemons

Zp = Callable[..., Result]
LIST = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}'


@pytest.fixture
def network(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "net.d").mkdir()
    path = tmp_path / "net.d" / "10-net.conflist"
    path.write_text(LIST)
    return path


def places(network: Path) -> tuple[str, ...]:
    return ("--conf-dir", str(network.parent), "--bin-dir", str(network.parents[1] / "bin"))


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ((), {}),
        (
            ("--fail-open", "--wait-ms", "500", "--timeout-ms", "3000"),
            {"failOpen": True, "waitMs": 500, "timeoutMs": 3000},
        ),
        (("--wait-ms", "0"), {}),
    ],
)
def test_options_become_the_plugins_configuration(
    start: StartDaemons, zp: Zp, network: Path, words: tuple[str, ...], more: dict[str, object]
) -> None:
    start(node_a={})
    result = zp("cni", "install", *places(network), *words)
    assert result.exit_code == 0, result.output
    entry = {"type": "zproxy-cni", "node": "node-a"} | more
    assert json.loads(network.read_text())["plugins"] == [{"type": "bridge"}, entry]
    assert [line.split()[::2] for line in result.stdout.splitlines()] == [
        ["WHAT", "RESULT"],
        ["plugin", "installed"],
        ["network", "changed"],
    ]


def test_a_node_may_be_named_before_its_daemon_runs(zp: Zp, network: Path) -> None:
    assert zp("cni", "install", *places(network), "--node", "node-z").exit_code == 0
    assert json.loads(network.read_text())["plugins"][1]["node"] == "node-z"


def test_of_several_daemons_one_is_to_be_named(start: StartDaemons, zp: Zp, network: Path) -> None:
    start(node_a={}, node_b={})
    result = zp("cni", "install", *places(network))
    assert result.exit_code == 1
    assert "choose node-a or node-b with --node" in result.stderr
    assert network.read_text() == LIST


def test_the_executable_is_run_by_this_interpreter_or_a_given_one(
    start: StartDaemons, zp: Zp, network: Path
) -> None:
    start(node_a={})
    executable = network.parents[1] / "bin" / "zproxy-cni"
    zp("cni", "install", *places(network))
    assert executable.read_text().startswith(f"#!{sys.executable} -IS\n")
    zp("cni", "install", *places(network), "--python", "/opt/python3")
    assert executable.read_text().startswith("#!/opt/python3 -IS\n")


def test_uninstall_restores(start: StartDaemons, zp: Zp, network: Path) -> None:
    start(node_a={})
    zp("cni", "install", *places(network))
    result = zp("cni", "uninstall", *places(network), "-o", "json")
    assert [row["result"] for row in json.loads(result.stdout)] == ["restored", "removed"]
    assert network.read_text() == LIST
    assert zp("cni", "uninstall", *places(network)).stderr == "Nothing of zproxy-cni is on this machine.\n"


def test_status_fails_until_the_plugin_is_installed(start: StartDaemons, zp: Zp, network: Path) -> None:
    start(node_a={})
    assert zp("cni", "status", *places(network)).exit_code == 1
    zp("cni", "install", *places(network))
    assert zp("cni", "status", *places(network)).exit_code == 0


def test_a_bad_network_is_one_sentence(start: StartDaemons, zp: Zp, network: Path) -> None:
    start(node_a={})
    network.write_text("{")
    result = zp("cni", "install", *places(network))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: 10-net.conflist is no JSON, so nothing was changed: ")
    assert not list((network.parents[1] / "bin").iterdir())


def test_what_cannot_be_written_is_one_sentence(start: StartDaemons, zp: Zp, network: Path) -> None:
    start(node_a={})
    (network.parents[1] / "bin" / "zproxy-cni").mkdir()
    result = zp("cni", "install", *places(network))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("Error: cannot read or write ")
    assert network.read_text() == LIST

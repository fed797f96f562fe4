"""`zproxy run`: what the daemon is started with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from zproxy import app
from zproxy.config import STATE_ROOT
from zproxy.model.settings import DEFAULT_SETTINGS

Zp = Callable[..., Result]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[app.Options]:
    """What daemons would have been started."""
    options: list[app.Options] = []
    monkeypatch.setattr(app, "run", options.append)
    return options


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--node", "node-a", "--config", "mesh.yaml"),
        ("--node", "node-a", "run", "--config", "mesh.yaml"),
        ("--node", "node-b", "run", "--node", "node-a", "--config", "mesh.yaml"),
    ],
)
def test_the_node_may_be_named_before_or_behind(
    zp: Zp, started: list[app.Options], words: tuple[str, ...]
) -> None:
    assert zp(*words).exit_code == 0
    assert started == [app.Options("node-a", Path("mesh.yaml"), STATE_ROOT / "ca", verbose=False)]


def test_options_reach_the_daemon(zp: Zp, started: list[app.Options]) -> None:
    more = ("--ca-dir", "/tmp/ca", "--idle-timeout", "90", "--busy-poll", "100")
    zp("-v", "run", "--node", "a", "--config", "m.yaml", *more)
    expected = app.Options("a", Path("m.yaml"), Path("/tmp/ca"), verbose=True, idle_s=90, busy_poll_us=100)
    assert started == [expected]


def test_without_a_node_the_sentence_says_what_is_missing(zp: Zp, started: list[app.Options]) -> None:
    result = zp("run", "--config", "mesh.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: which node is this? give --node NAME")
    assert not started


def test_without_a_mesh_it_is_wrong_usage(zp: Zp, started: list[app.Options]) -> None:
    result = zp("run", "--node", "a")
    assert result.exit_code == 2
    assert "give --config FILE, or --kubernetes" in result.stderr
    assert not started


def test_the_mesh_may_come_from_kubernetes(zp: Zp, started: list[app.Options]) -> None:
    zp("run", "--node", "a", "--kubernetes")
    zp("run", "--node", "a", "--kubernetes", "--kubeconfig", "k.conf", "--config", "m.yaml")
    found = [(each.kubernetes, each.kubeconfig, each.config) for each in started]
    assert found == [(True, None, None), (True, Path("k.conf"), Path("m.yaml"))]


def test_a_way_to_kubernetes_without_kubernetes_is_wrong_usage(zp: Zp, started: list[app.Options]) -> None:
    result = run(zp, "--kubeconfig", "k.conf")
    assert result.exit_code == 2
    assert "give --kubernetes as well" in result.stderr
    assert not started


def test_the_number_of_workers_reaches_the_daemon(zp: Zp, started: list[app.Options]) -> None:
    zp("run", "--node", "a", "--config", "m.yaml", "--workers", "2")
    assert started[0].workers == 2


@pytest.mark.parametrize("count", ["0", "-1", "65", "two", ""])
def test_a_number_of_workers_that_cannot_be_is_wrong_usage(
    zp: Zp, started: list[app.Options], count: str
) -> None:
    result = zp("run", "--node", "a", "--config", "m.yaml", "--workers", count)
    assert result.exit_code == 2
    assert "Invalid value for '--workers'" in result.stderr
    assert not started


def test_what_pods_may_dial_is_anything_unless_said(zp: Zp, started: list[app.Options]) -> None:
    zp("run", "--node", "a", "--config", "m.yaml")
    zp("run", "--node", "a", "--config", "m.yaml", "--outbound-policy", "registry_only")
    assert [options.settings.outbound_policy.value for options in started] == ["allow_any", "registry_only"]
    assert zp("run", "--node", "a", "--config", "m.yaml", "--outbound-policy", "deny").exit_code == 2


def run(zp: Zp, *more: str) -> Result:
    return zp("run", "--node", "a", "--config", "m.yaml", *more)


def test_names_end_in_cluster_local_and_no_namespace_is_preferred_unless_said(
    zp: Zp, started: list[app.Options]
) -> None:
    run(zp)
    run(zp, "--cluster-domain", "Corp.Example.", "--preferred-service-namespace", "Shop")
    found = [(each.settings.cluster_domain, each.settings.preferred_service_namespace) for each in started]
    assert found == [("cluster.local", ""), ("corp.example", "shop")]
    assert started[0].settings == DEFAULT_SETTINGS


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        ("--cluster-domain", "cluster..local", "'cluster..local' is no domain; write one such as"),
        ("--preferred-service-namespace", "a.b", "'a.b' is no namespace; write its name, of a-z, 0-9"),
    ],
)
def test_a_name_that_cannot_be_is_wrong_usage(
    zp: Zp, started: list[app.Options], option: str, text: str, sentence: str
) -> None:
    result = run(zp, option, text)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {sentence}" in " ".join(result.stderr.split())
    assert not started


@pytest.mark.parametrize(
    ("words", "path"),
    [((), ""), (("--zds",), "/var/run/ztunnel/ztunnel.sock"), (("--zds", "/x.sock"), "/x.sock")],
)
def test_pods_are_taken_from_istio_cni_where_it_is_asked_for(
    zp: Zp, started: list[app.Options], words: tuple[str, ...], path: str
) -> None:
    assert (
        zp("run", "--node", "a", "--config", "m.yaml", *words, "--trust-domain", "corp.example").exit_code
        == 0
    )
    assert (started[0].zds, started[0].trust_domain) == (path, "corp.example")


def test_what_can_be_no_trust_domain_is_wrong_usage(zp: Zp, started: list[app.Options]) -> None:
    result = zp("run", "--node", "a", "--config", "m.yaml", "--trust-domain", "a/b")
    assert result.exit_code == 2
    assert "'a/b' is not a trust domain" in result.stderr


def test_rules_of_istio_cni_steer_where_it_is_asked_for(zp: Zp, started: list[app.Options]) -> None:
    run(zp, "--zds", "--steering", "external")
    run(zp, "--zds")
    assert [options.is_external for options in started] == [True, False]
    assert "give --zds, too" in run(zp, "--steering", "external").stderr

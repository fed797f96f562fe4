"""Calls to the API server: TLS, tokens that are rotated, refusals that say what to do."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import PATHS, Fault, api_server
from tests.support.kubeobjects import kube_pod
from zproxy.errors import ConfigError
from zproxy.kube import api as module
from zproxy.kube.api import KubeApi
from zproxy.kube.informer import ApiFailed, NotThere
from zproxy.kube.ledger import Expired

PODS = PATHS["pods"]
STATUS = "/api/v1/namespaces/demo/pods/web/status"
T = Callable[[KubeApi], Awaitable[Any]]


def using(kubeconfig: Path | None, work: T) -> Any:
    async def go() -> Any:
        api = KubeApi(kubeconfig)
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(go())


async def get(api: KubeApi) -> Any:
    return json.loads(await api.get(PODS, {"limit": "5"}))


def refusal(kubeconfig: Path, work: T = get) -> str:
    with pytest.raises(ApiFailed) as caught:
        using(kubeconfig, work)
    return str(caught.value)


def test_tls_and_a_token(tmp_path: Path) -> None:
    with api_server(tmp_path, token="secret") as server:
        server.put("pods", kube_pod("demo/web"))
        found = using(server.kubeconfig(tmp_path / "config"), get)
        assert found["items"][0]["metadata"]["name"] == "web"
        server.token = "another"
        assert "401 Unauthorized" in refusal(tmp_path / "config")


def test_a_certificate_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with api_server(tmp_path) as server, api_server(tmp_path / "other") as other:
        text = server.kubeconfig(tmp_path / "config").read_text()
        (tmp_path / "config").write_text(text.replace(server.url, other.url))
        assert "certificate is not trusted" in refusal(tmp_path / "config")


def test_a_token_that_is_rotated_is_read_again(tmp_path: Path) -> None:
    with api_server(tmp_path, token="first") as server:
        config = server.kubeconfig(tmp_path / "config")

        async def work(api: KubeApi) -> None:
            await get(api)
            server.token = "second"
            server.kubeconfig(config)
            with pytest.raises(ApiFailed):
                await get(api)
            await get(api)

        using(config, work)


def test_in_a_cluster_a_pod_knows_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(tmp_path, token="mounted") as server:
        (tmp_path / "token").write_text("mounted")
        incluster = "kubernetes_asyncio.config.incluster_config"
        monkeypatch.setattr(f"{incluster}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
        monkeypatch.setattr(f"{incluster}.SERVICE_CERT_FILENAME", str(tmp_path / "api.crt"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
        assert using(None, get)["kind"] == "List"


@pytest.mark.parametrize(
    "text", [None, "", "[]", "clusters: 1", "current-context: x\ncontexts: []\n", ": : :"]
)
def test_a_bad_configuration_is_a_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"no way to the API server from {path}: "):
        using(path, KubeApi.open)


def test_outside_a_cluster_a_file_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="--kubeconfig"):
        using(None, KubeApi.open)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.BROKEN, "500 instead of an answer"),
        (Fault.FORBIDDEN, "docs/kubernetes.md lists the rights"),
        (Fault.BUSY, "429"),
    ],
)
def test_refusals_say_why(tmp_path: Path, fault: Fault, says: str) -> None:
    with api_server() as server:
        server.break_next("list", fault)
        assert says in refusal(server.kubeconfig(tmp_path / "config"))


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    with api_server() as server:
        server.break_next("list", Fault.BUSY)
        with pytest.raises(ApiFailed) as caught:
            using(server.kubeconfig(tmp_path / "config"), get)
        assert caught.value.wait_s == 1.0


def test_gone_is_told_apart(tmp_path: Path) -> None:
    with api_server() as server:
        server.break_next("list", Fault.GONE)
        with pytest.raises(Expired):
            using(server.kubeconfig(tmp_path / "config"), get)


def test_nobody_there(tmp_path: Path) -> None:
    with api_server() as server:
        config = server.kubeconfig(tmp_path / "config")
    assert "cannot be reached" in refusal(config)


def test_an_answer_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE", 1000)
    with api_server() as server:
        for number in range(5):
            server.put("pods", kube_pod(f"demo/web-{number}"))
        assert "an answer of more than" in refusal(server.kubeconfig(tmp_path / "config"))


def patch_of(uid: str, value: str | None) -> T:
    async def work(api: KubeApi) -> None:
        await api.patch(STATUS, {"metadata": {"uid": uid, "annotations": {"a": value}}})

    return work


def test_a_patch_merges(tmp_path: Path) -> None:
    with api_server() as server:
        server.put("pods", kube_pod("demo/web", uid="u1", annotations={"b": "2"}))
        config = server.kubeconfig(tmp_path / "config")
        using(config, patch_of("u1", "1"))
        assert server.get("pods", "demo/web")["metadata"]["annotations"] == {"a": "1", "b": "2"}
        using(config, patch_of("u1", None))
        assert server.get("pods", "demo/web")["metadata"]["annotations"] == {"b": "2"}


def test_a_patch_meets_nobody_but_the_pod_that_is_meant(tmp_path: Path) -> None:
    with api_server() as server:
        config = server.kubeconfig(tmp_path / "config")
        with pytest.raises(NotThere):
            using(config, patch_of("u1", "1"))
        server.put("pods", kube_pod("demo/web", uid="u2"))
        with pytest.raises(NotThere):
            using(config, patch_of("u1", "1"))


def test_the_server_is_told_who_asks(tmp_path: Path) -> None:
    with api_server() as server:
        using(server.kubeconfig(tmp_path / "config"), get)
        assert server.agents[0].startswith("zproxy/")

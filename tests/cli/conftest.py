"""Commands against daemons that answer from a table."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from zproxy_cli.main import zproxy

from tests.support.daemons import Daemons
from zproxy.node import client

StartDaemons = Callable[..., Daemons]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> StartDaemons:
    """Return a function that puts daemons in place: node → command → answer."""

    def put(**answers: dict[str, Any]) -> Daemons:
        daemons = Daemons({node.replace("_", "-"): table for node, table in answers.items()})
        monkeypatch.setattr(client, "running_nodes", daemons.running_nodes)
        monkeypatch.setattr(client, "Client", daemons.client)
        return daemons

    return put


@pytest.fixture
def zp(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs `zproxy` with these words."""
    monkeypatch.delenv("ZPROXY_NODE", raising=False)
    return lambda *words: CliRunner().invoke(zproxy, words, prog_name="zproxy")

"""Daemons that are not there: the CLI's client answers from a table, and keeps what it was asked."""

from typing import Any, NamedTuple

from zproxy.errors import ZproxyError


class Call(NamedTuple):
    """One request that a daemon would have had."""

    node: str
    command: str
    arguments: dict[str, Any]


class Daemons:
    """Answers by node and command; an answer that is an exception is raised. Makes the clients, too."""

    def __init__(self, answers: dict[str, dict[str, Any]]) -> None:
        self.answers = answers
        self.calls: list[Call] = []

    def running_nodes(self) -> list[str]:
        """Return all nodes."""
        return sorted(self.answers)

    def client(self, node: str) -> "FakeClient":
        """Return what stands for zproxy.node.client.Client(node)."""
        return FakeClient(node, self)


class FakeClient:
    """One daemon's client."""

    def __init__(self, node: str, daemons: Daemons) -> None:
        self.node = node
        self._daemons = daemons

    def call(self, command: str, **arguments: Any) -> Any:
        """Note the request and return the answer, fresh each time."""
        self._daemons.calls.append(Call(self.node, command, arguments))
        answer = self._daemons.answers[self.node][command]
        if isinstance(answer, ZproxyError):
            raise answer
        if isinstance(answer, str):
            return answer
        return [dict(row) for row in answer] if isinstance(answer, list) else dict(answer)

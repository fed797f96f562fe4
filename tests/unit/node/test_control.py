"""The control socket: who may speak, in which words, and what a bad client cannot do."""

import asyncio
import contextlib
import gc
import json
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from zproxy.errors import EnrollError
from zproxy.node import control
from zproxy.node.control import MAX_CLIENTS, MAX_LINE, VERSION, ControlServer

Body = Callable[["Desk"], Awaitable[None]]


class Desk:
    """A server whose commands do what a test needs, and clients of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "control.sock"
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = asyncio.Event()
        self.server = ControlServer(
            self.path,
            {
                "echo": self.echo,
                "wait": self.wait,
                "refuse": self.refuse,
                "crash": self.crash,
                "stop": self.ended.set,
            },
        )

    @staticmethod
    def echo(text: str, times: int = 1) -> list[str]:
        return [text] * times

    async def wait(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        self.ended.set()
        return "done"

    async def refuse(self) -> None:
        raise EnrollError("unknown pod demo/x")

    @staticmethod
    def crash() -> None:
        none: Any = None
        none + 1

    async def connect(self) -> "Caller":
        return Caller(*await asyncio.open_unix_connection(str(self.path), limit=1 << 20))

    async def ask(self, request: Any) -> dict[str, Any]:
        """Connect, send one line, return the answer."""
        caller = await self.connect()
        try:
            return await caller.ask(request)
        finally:
            await caller.close()


class Caller:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: Any) -> dict[str, Any]:
        line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
        self.writer.write(line)
        answer = await self.reader.readline()
        assert answer.endswith(b"\n"), answer
        result: dict[str, Any] = json.loads(answer)
        return result

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
def served(tmp_path: Path) -> Callable[[Body], None]:
    """Return a function that runs a test's body against a started server."""

    async def serve(body: Body) -> list[str]:
        unhandled: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(str(context)))
        desk = Desk(tmp_path)
        await desk.server.start()
        try:
            await asyncio.wait_for(body(desk), 10)
        finally:
            await desk.server.close()
        gc.collect()  # a task's exception that nobody asked for is reported when the task goes
        return unhandled

    def serve_cleanly(body: Body) -> None:
        assert asyncio.run(serve(body)) == []

    return serve_cleanly


def request(command: str, **arguments: Any) -> dict[str, Any]:
    return {"version": VERSION, "command": command, "arguments": arguments}


def test_a_command_is_answered_on_one_line(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        assert await desk.ask(request("echo", text="é", times=2)) == {"version": 1, "result": ["é", "é"]}

    served(body)


def test_arguments_may_be_left_out(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        assert await desk.ask({"version": VERSION, "command": "stop"}) == {"version": 1, "result": None}
        assert desk.ended.is_set()

    served(body)


def test_a_connection_takes_any_number_of_commands(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        caller = await desk.connect()
        for number in range(50):
            assert (await caller.ask(request("echo", text=str(number))))["result"] == [str(number)]
        await caller.close()

    served(body)


def test_a_command_s_own_sentence_is_the_answer(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        assert await desk.ask(request("refuse")) == {"version": 1, "error": "unknown pod demo/x"}

    served(body)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"\n", "not a request: one JSON object per line with version and command"),
        (b"pods\n", "not a request: one JSON object"),
        (b"\xff\xfe\n", "not a request: one JSON object"),
        (b"[]\n", "not a request: one JSON object"),
        (b"null\n", "not a request: one JSON object"),
        (b"{}\n", "not a request: one JSON object"),
        (b'{"version": 1}\n', "not a request: one JSON object"),
        (b'{"version": 1, "command": 7}\n', "not a request: command is text and arguments is an object"),
        (b'{"version": 1, "command": "echo", "arguments": []}\n', "not a request: command is text and"),
        (b'{"version": 2, "command": "echo"}\n', "speaks control protocol 1, the client 2; update the older"),
        (b'{"version": 1, "command": "fly"}\n', "knows no command 'fly'; is the CLI of another version?"),
        (
            b'{"version": 1, "command": "echo"}\n',
            "bad arguments for echo: missing a required argument: 'text'",
        ),
        (
            b'{"version": 1, "command": "stop", "arguments": {"now": true}}\n',
            "bad arguments for stop: got an unexpected keyword argument 'now'",
        ),
    ],
)
def test_what_is_no_request_is_answered_with_a_sentence_and_the_next_one_is_served(
    served: Callable[[Body], None], line: bytes, sentence: str
) -> None:
    async def body(desk: Desk) -> None:
        caller = await desk.connect()
        answer = await caller.ask(line)
        assert sentence in answer["error"]
        assert "result" not in answer
        assert (await caller.ask(request("echo", text="x")))["result"] == ["x"]
        await caller.close()

    served(body)


def test_an_error_of_the_daemon_s_own_is_logged_and_does_not_end_it(
    served: Callable[[Body], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.ask(request("crash"))
        assert answer["error"].startswith("internal error: unsupported operand")
        assert (await desk.ask(request("echo", text="x")))["result"] == ["x"]

    served(body)
    assert "Traceback" in caplog.text


def test_a_line_that_is_too_long_ends_that_client_only(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        other, caller = await desk.connect(), await desk.connect()
        caller.writer.write(b"x" * (4 * MAX_LINE))
        with contextlib.suppress(ConnectionError):  # what the server did not read makes it a reset
            assert await caller.reader.read() == b""
        with contextlib.suppress(ConnectionError):
            await caller.close()
        assert (await other.ask(request("echo", text="x")))["result"] == ["x"]
        await other.close()

    served(body)


def test_a_long_answer_arrives_whole(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        answer = await desk.ask(request("echo", text="x" * 100, times=5000))
        assert len(answer["result"]) == 5000

    served(body)


def test_many_clients_are_served_at_once_and_one_too_many_is_told(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        callers = [await desk.connect() for _ in range(MAX_CLIENTS)]
        answers = await asyncio.gather(*(c.ask(request("echo", text=str(n))) for n, c in enumerate(callers)))
        assert [answer["result"] for answer in answers] == [[str(n)] for n in range(MAX_CLIENTS)]
        late = await desk.connect()
        answer = json.loads(await late.reader.readline())
        assert answer["error"] == f"{MAX_CLIENTS} clients are connected already; try again"
        await late.close()
        await callers.pop().close()
        answers = [await desk.ask(request("echo", text="x")) for _ in range(10)]
        assert answers[-1].get("result") == ["x"], "once the server has seen that one left"
        for caller in callers:
            await caller.close()

    served(body)


def test_a_slow_command_holds_nobody_else_up(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        slow = await desk.connect()
        answer = asyncio.ensure_future(slow.ask(request("wait")))
        await desk.begun.wait()
        assert (await desk.ask(request("echo", text="x")))["result"] == ["x"]
        desk.may_end.set()
        assert (await answer)["result"] == "done"
        await slow.close()

    served(body)


def test_a_client_that_goes_away_does_not_stop_its_command(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        caller = await desk.connect()
        caller.writer.write(json.dumps(request("wait")).encode() + b"\n")
        await desk.begun.wait()
        await caller.close()
        desk.may_end.set()
        await desk.ended.wait()
        assert (await desk.ask(request("echo", text="x")))["result"] == ["x"]

    served(body)


def test_a_client_that_is_cut_off_does_not_stop_its_command(served: Callable[[Body], None]) -> None:
    """The daemon's end cancels the server's tasks; an enrolment goes on to its end or its undoing."""

    async def body(desk: Desk) -> None:
        caller = await desk.connect()
        caller.writer.write(json.dumps(request("wait")).encode() + b"\n")
        await desk.begun.wait()
        for task in asyncio.all_tasks():
            if "_serve" in repr(task.get_coro()):
                task.cancel()
        desk.may_end.set()
        await desk.ended.wait()
        await caller.close()

    served(body)


def test_an_idle_client_is_dropped(served: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.01)

    async def body(desk: Desk) -> None:
        caller = await desk.connect()
        assert await caller.reader.read() == b""
        await caller.close()

    served(body)


def test_the_socket_is_for_its_owner_only(served: Callable[[Body], None]) -> None:
    async def body(desk: Desk) -> None:
        mode = desk.path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600

    served(body)


def test_a_dead_daemon_s_socket_is_replaced(served: Callable[[Body], None], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))

    async def body(desk: Desk) -> None:
        assert (await desk.ask(request("echo", text="x")))["result"] == ["x"]

    served(body)


def test_closing_removes_the_socket(served: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(desk: Desk) -> None:
        assert desk.path.exists()

    served(body)
    assert not (tmp_path / "control.sock").exists()


def test_a_server_that_never_started_may_be_closed(tmp_path: Path) -> None:
    asyncio.run(ControlServer(tmp_path / "control.sock", {}).close())

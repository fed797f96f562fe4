"""`zproxy bpf`: what it adds to bpftool's grammar; tests/bpf compares the rest with bpftool itself."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from zproxy_cli import bpf_view
from zproxy_cli.main import zproxy

from tests.support.bpf_maps import Shape, bpffs, made, program
from zproxy.steering.syscall import map_update, obj_pin


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nodes a and b with a map zp_pods and a program zp_connect4 each, and more of b."""
    with bpffs(tmp_path / "bpffs") as root:
        monkeypatch.setattr(bpf_view, "PIN_ROOT", root)
        for number, pin in enumerate(("a/maps/zp_pods", "b/maps/zp_pods", "b/maps/zp_stats")):
            path = root / pin
            path.parent.mkdir(parents=True, exist_ok=True)
            with made(Shape(1, 4, 4, 4, name=path.name)) as fd:
                map_update(fd, struct.pack("=I", number), struct.pack("=I", number))
                obj_pin(fd, path)
        for pin in ("a/progs/zp_connect4", "b/progs/zp_connect4", "b/progs/zp_lookup"):
            path = root / pin
            path.parent.mkdir(parents=True, exist_ok=True)
            with program(name=path.name) as fd:
                obj_pin(fd, path)
        yield root


def run(*words: str) -> Result:
    return CliRunner().invoke(zproxy, words, prog_name="zproxy")


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
def test_a_bare_name_is_the_map_of_the_chosen_node() -> None:
    expected = "key: 01 00 00 00  value: 01 00 00 00\nFound 1 element\n"
    assert run("--node", "b", "bpf", "map", "dump", "zp_pods").stdout == expected
    assert run("bpf", "map", "dump", "zp_pods", "--node", "b").stdout == expected
    assert run("bpf", "map", "dump", "zp_stats").stdout.startswith("key: 02 00 00 00")


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
def test_without_a_node_the_maps_of_all_are_shown_under_headers() -> None:
    plain = run("bpf", "map", "dump", "zp_pods").stdout
    assert plain.count(": hash  name zp_pods  flags 0x0\n") == 2
    assert plain.count("Found 1 element\n") == 2
    listed = json.loads(run("bpf", "map", "dump", "zp_pods", "-j").stdout)
    assert [each["elements"][0]["key"][0] for each in listed] == ["0x00", "0x01"]
    assert len(json.loads(run("bpf", "-j", "map", "show", "zp_pods").stdout)) == 2


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("verb", ["lookup", "getnext"])
def test_a_key_is_looked_for_at_one_node_only(verb: str) -> None:
    result = run("bpf", "map", verb, "zp_pods", "key", "1", "0", "0", "0")
    assert result.exit_code == 1
    assert (result.stdout, result.stderr) == (
        "",
        "Error: a and b have a map zp_pods: choose one with --node\n",
    )


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
def test_a_key_is_looked_up_in_the_chosen_nodes_map() -> None:
    words = ("bpf", "map", "lookup", "zp_pods", "key", "hex", "01", "0", "0", "0", "--node")
    assert run(*words, "b").stdout == "key: 01 00 00 00  value: 01 00 00 00\n"
    missed = run(*words, "a")
    assert (missed.exit_code, missed.stdout) == (254, "key:\n01 00 00 00\n\nNot found\n")


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
def test_a_name_that_no_node_pinned_is_a_sentence() -> None:
    result = run("bpf", "map", "dump", "zp_none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: no map zp_none is pinned in ")
    assert result.stderr.count("\n") == 1
    answer = run("bpf", "map", "dump", "zp_none", "-j")
    assert answer.exit_code == 1
    assert "no map zp_none" in json.loads(answer.stdout)["error"]


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
def test_a_bare_name_is_the_program_of_every_node_or_of_the_chosen_one() -> None:
    both = run("bpf", "prog", "show", "zp_connect4").stdout
    assert both.count("  name zp_connect4  tag ") == 2
    assert len(json.loads(run("bpf", "prog", "list", "zp_connect4", "-j").stdout)) == 2
    one = run("bpf", "prog", "show", "zp_connect4", "--node", "b", "-j").stdout
    assert json.loads(one)["name"] == "zp_connect4"
    alone = run("--node", "b", "bpf", "p", "s", "zp_lookup")
    assert (alone.exit_code, alone.stdout) == (0, run("bpf", "prog", "show", "zp_lookup").stdout)


@pytest.mark.root
@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(("noun", "title"), [("prog", "program"), ("link", "link")])
def test_what_no_node_pinned_under_a_name_is_a_sentence(noun: str, title: str) -> None:
    result = run("bpf", noun, "show", "zp_none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: no {title} zp_none is pinned in ")
    assert f"`zproxy bpf {noun} list -f` shows what is pinned" in result.stderr


@pytest.mark.root
def test_net_takes_nothing_or_an_interface() -> None:
    result = run("bpf", "net", "show", "lo")
    assert (result.exit_code, result.stdout) == (255, "")
    assert result.stderr == "Error: `net` takes nothing, or dev NAME\n"
    assert run("bpf", "net", "show", "dev", "lo").exit_code == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("prog",), "BPF programs"),
        (("link", "list"), "BPF links"),
        (("cgroup", "tree"), "what is attached to cgroups"),
        (("cgroup",), "what is attached to cgroups"),
        (("net",), "what is attached to interfaces"),
    ],
)
def test_each_noun_says_what_needs_the_capability(
    words: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf_view, "may_read_maps", lambda: False)
    result = run("bpf", *words)
    assert (result.exit_code, result.stdout) == (1, "")
    sentence = f"Error: reading {what} needs root (CAP_SYS_ADMIN): run the same command with sudo\n"
    assert result.stderr == sentence


@pytest.mark.parametrize(
    "verb", [(), ("show",), ("list",), ("dump", "zp_pods"), ("lookup", "id", "1", "key", "0")]
)
def test_without_the_capability_one_sentence_says_so(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf_view, "may_read_maps", lambda: False)
    result = run("bpf", "map", *verb)
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr
        == "Error: reading BPF maps needs root (CAP_SYS_ADMIN): run the same command with sudo\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("dump",), "MAP is missing"),
        (("dump", "id"), "MAP is missing"),
        (("lookup",), "MAP is missing"),
        (("getnext", "pinned"), "MAP is missing"),
        (("dump", "id", "1", "2"), "nothing may follow MAP, but `2` does"),
        (("dump", "zp_pods", "x"), "nothing may follow MAP, but `x` does"),
        (("frob",), "No such command 'frob'"),
        (("dump", "-x", "zp_pods"), "No such option"),
    ],
)
def test_wrong_usage_has_bpftools_status(words: tuple[str, ...], sentence: str) -> None:
    result = run("bpf", "map", *words)
    assert (result.exit_code, result.stdout) == (255, "")
    assert sentence in result.stderr
    in_json = run("bpf", "-j", "map", *words)
    assert (in_json.exit_code, in_json.stdout, in_json.stderr) == (255, "null\n", "")


def test_help_shows_the_grammar() -> None:
    text = run("bpf", "map", "--help").stdout
    assert "bare NAME" in text
    assert [word for word in ("show", "list", "dump", "lookup", "getnext") if f"\n  {word}" not in text] == []


@pytest.mark.parametrize(
    ("noun", "verbs"),
    [("prog", "show list"), ("link", "show list"), ("cgroup", "show list tree"), ("net", "show list")],
)
def test_help_lists_the_verbs(noun: str, verbs: str) -> None:
    shown = run("bpf", noun, "--help").stdout
    assert [verb for verb in verbs.split() if f"\n  {verb}" not in shown] == []


def test_nouns_are_in_bpftools_order_and_may_be_cut_short() -> None:
    text = run("bpf", "--help").stdout
    places = [text.index(f"\n  {noun} ") for noun in ("prog", "map", "link", "cgroup", "net")]
    assert places == sorted(places)
    assert run("bpf", "p", "--help").stdout.startswith("Usage: zproxy bpf p ")


@pytest.mark.parametrize("words", [("-x",), ("frob",), ("prog", "frob"), ("link", "-x"), ("net", "x")])
def test_a_wrong_noun_verb_or_option_has_bpftools_status(words: tuple[str, ...]) -> None:
    result = run("bpf", *words)
    assert (result.exit_code, result.stdout) == (255, "")
    assert "Usage: zproxy bpf" in result.stderr

"""What `make bench` decides without measuring: cells, medians, ratios, gates, tables, the load's protocol."""

import os
import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from fnmatch import fnmatchcase

import pytest

from tests.bench import ambient, dns, dns_load, facts, paths, proc, report, state, state_mesh
from tests.bench.cells import (
    CONTENDERS,
    HIGHER,
    LOWER,
    SHAPES,
    Raw,
    Results,
    Row,
    Run,
    Shape,
    chosen,
    contenders_of,
    matches,
)
from tests.bench.dns_load import Asker, Window
from tests.bench.facts import Fact
from tests.bench.gates import AIM, GATES, MISS, PASS, Gate, verdicts
from tests.bench.load import LoadError, window
from zproxy.state.store import Mesh

CELLS = [cell.name for shape in SHAPES for cell in shape.cells]
BULK = next(shape for shape in SHAPES if shape.name == "bulk up x1")


def shape(name: str) -> Shape:
    return next(shape for shape in SHAPES if shape.name == name)


def results(name: str = "bulk up x1", **values: list[float]) -> Results:
    """Return what rounds with these values of the cell `name` give, by contender."""
    made = Results()
    of = next(shape for shape in SHAPES if name in [cell.name for cell in shape.cells])
    for contender, rounds in values.items():
        for value in rounds:
            made.add(of, contender, Run({name: value}))
    return made


def test_no_two_cells_have_the_same_name() -> None:
    assert len(set(CELLS)) == len(CELLS)


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("bulk", "bulk up x1 CPU", True),
        ("bulk", "pinned bulk up x1", False),
        ("*bulk", "pinned bulk up x1", True),
        ("connects x1", "connects x1 p50", True),
        ("connects x1", "connects x16 p50", False),
        ("RR *P99", "rr 64B x1 p99", True),
    ],
)
def test_a_pattern_names_a_cell_or_the_first_words_of_it(pattern: str, name: str, is_match: bool) -> None:
    assert matches(name, [pattern]) is is_match


def test_only_the_shapes_behind_the_wanted_cells_run() -> None:
    assert [shape.name for shape in chosen(["bulk up x1 CPU", "idle x1000"])] == ["bulk up x1", "idle x1000"]
    assert chosen(["nothing"]) == []
    assert chosen(["*"]) == list(SHAPES)


def test_only_proxies_are_pinned_and_only_servers_meet_cold_connects() -> None:
    assert contenders_of(shape("pinned bulk up x1")) == ("zproxy", "envoy")
    assert contenders_of(shape("cold mTLS connect")) == ("zproxy", "envoy")
    assert contenders_of(BULK) == CONTENDERS["mesh"]


def test_bulk_is_a_rate_and_the_cpu_of_both_sides_for_a_gigabyte() -> None:
    raw = Raw(seconds=0.5, size=1e9, cpu={"client": 0.2, "server": 0.3})
    assert BULK.values(raw) == {"bulk up x1": 2000, "bulk up x1 CPU": 0.5}


def test_operations_are_times_a_rate_and_the_cpu_of_each_side() -> None:
    raw = Raw(seconds=2, operations=1000, p50_us=10, p99_us=20, cpu={"client": 0.01, "server": 0.02})
    assert shape("connects x16").values(raw) == {
        "connects x16 p50": 10,
        "connects x16 p99": 20,
        "connects x16 rate": 500,
        "connects x16 CPU client": pytest.approx(10),
        "connects x16 CPU server": pytest.approx(20),
    }


def test_who_has_no_proxy_has_no_cpu_cells() -> None:
    assert list(BULK.values(Raw(seconds=1, size=1e9))) == ["bulk up x1"]


@pytest.mark.parametrize("kind", ["bulk", "rr", "cps", "mixed", "cold"])
def test_every_value_has_its_cell(kind: str) -> None:
    some = next(shape for shape in SHAPES if shape.kind == kind)
    raw = Raw(seconds=1, operations=1, size=1, cpu={"client": 1, "server": 1})
    assert set(some.values(raw)) == {cell.name for cell in some.cells}


def test_a_row_has_the_medians_of_the_rounds_and_their_ratio() -> None:
    [row] = results(zproxy=[1, 30, 3], envoy=[2, 2, 100], direct=[5]).rows()
    assert row.medians == {"zproxy": 3, "envoy": 2, "direct": 5}
    assert row.ratio == 1.5


def test_one_worker_is_compared_with_two() -> None:
    medians: dict[str, list[float]] = {"zproxy": [3], "two workers": [6]}
    [row] = results("one node bulk up x8", **medians).rows()
    assert (row.ratio, row.against) == (0.5, "two workers")


def test_steering_is_compared_with_iptables() -> None:
    [row] = results("steering connects x1 rate", zproxy=[3], iptables=[2], direct=[9]).rows()
    assert (row.ratio, row.against) == (1.5, "iptables")


@pytest.mark.parametrize("name", ["steering connects x1 rate", "pinned steering connects x1 rate"])
def test_who_steers_is_compared_with_who_does_not(name: str) -> None:
    [row] = measured(name, zproxy=3, iptables=2, direct=6)
    assert (row.ratio, row.against) == (1.5, "iptables")
    assert paths.table([row])[1] == [name, "/s", "6", "3", "2", "0.50", "0.33", "1.50"]
    [alone] = measured(name, zproxy=3)
    assert paths.table([alone])[1] == [name, "/s", "-", "3", "-", "-", "-", "-"]


def test_only_times_and_rates_are_shown_of_the_ways_to_the_proxy() -> None:
    assert len(paths.table(measured("steering connects x1 p99", zproxy=3))) == 1


def test_what_steering_adds_is_the_difference_on_one_core() -> None:
    rows = [
        *measured("steering connects x1 p50", zproxy=9, direct=1),
        *measured(paths.ONE_CORE, zproxy=53, direct=48),
    ]
    assert paths.added_us(rows, "zproxy") == 5
    assert paths.added_us(rows, "iptables") is None
    assert paths.added_us(rows[:1], "zproxy") is None


def test_the_stub_s_cells_are_all_of_contenders_that_steer_or_do_not() -> None:
    assert {shape.name for shape in paths.MICRO} >= {*paths.THROUGH, "pinned steering connects x1"}
    for of in paths.MICRO:
        stubs = set(paths.CONTENDERS) if of.group == "steering" else {"direct", "zproxy"}
        assert set(contenders_of(of)) & set(paths.CONTENDERS) == stubs


def measured(name: str, **values: float) -> list[Row]:
    """Return the row of one cell, of the benchmark's own or of those of steering."""
    of = next(shape for shape in (*paths.MICRO, *SHAPES) if name in [cell.name for cell in shape.cells])
    made = Results()
    for contender, value in values.items():
        made.add(of, contender, Run({name: value}))
    return made.rows()


@pytest.mark.parametrize(("value", "limit", "says"), [(49.9, 50, "PASS"), (50, 50, "MISS"), (1, None, "")])
def test_a_figure_may_have_a_target(value: float, limit: float | None, says: str) -> None:
    fact = Fact("enrolment", value, "ms", limit)
    assert fact.says == says
    assert facts.table([fact])[1] == ["enrolment", "ms", "< 50" if limit else "", says, report.figure(value)]
    assert facts.as_json([fact]) == [{"name": "enrolment", "value": value, "unit": "ms", "limit": limit}]


def test_the_rules_are_a_script_in_which_every_chain_is_jumped_to() -> None:
    tables = ambient.script().split("COMMIT\n")
    assert [table.splitlines()[0] for table in tables[:-1]] == ["*raw", "*mangle", "*nat"]
    for table in tables[:-1]:
        for hook, chain in (("PREROUTING", "ISTIO_PRERT"), ("OUTPUT", "ISTIO_OUTPUT")):
            assert f"-A {hook} -j {chain}\n" in table
            assert f"\n-A {chain} " in table


def test_a_contender_that_failed_once_has_an_error_and_no_median() -> None:
    made = results(zproxy=[1, 2], envoy=[1])
    made.fail(BULK, "zproxy", "reset")
    [row, cpu] = made.rows()
    assert (row.medians, row.errors, row.ratio) == ({"envoy": 1}, {"zproxy": "reset"}, None)
    assert cpu.errors == {"zproxy": "reset"}
    assert report.errors([row, cpu]) == ["zproxy failed in bulk up x1, bulk up x1 CPU: reset"]
    assert "error" in report.cells_table([row])[1]


def test_a_run_in_which_the_load_had_no_time_left_is_marked() -> None:
    made = Results()
    for contender, share in (("zproxy", 0.99), ("envoy", 0.5), ("direct", 1.0)):
        made.add(BULK, contender, Run({"bulk up x1": 100}, share))
        made.add(BULK, contender, Run({"bulk up x1 CPU": 1}, share))
    row, cpu = made.rows()
    assert row.load_bound == {"zproxy"}
    assert not cpu.load_bound
    assert report.cells_table([row])[1][3:] == ["100.0!", "100.0", "100.0", "1.00"]
    assert report.as_json([row])[0]["load_bound"] == ["zproxy"]


def test_noise_is_the_median_and_what_one_run_of_ten_exceeds() -> None:
    made = Results()
    for others in (None, -0.1, *(number / 10 for number in range(1, 10))):
        made.add(BULK, "zproxy", Run({}, others=others))
    assert made.noise() == pytest.approx((0.45, 0.9))
    assert Results().noise() == (0, 0)


def test_the_json_has_null_where_nothing_was_measured() -> None:
    [cell] = report.as_json(results(zproxy=[3], envoy=[2]).rows())
    assert cell == {
        "cell": "bulk up x1",
        "unit": "MB/s",
        "better": "higher",
        "zproxy": 3,
        "envoy": 2,
        "direct": None,
        "zproxy>envoy": None,
        "envoy>zproxy": None,
        "iptables": None,
        "two workers": None,
        "ratio": 1.5,
        "against": "envoy",
        "load_bound": [],
        "errors": {},
    }


def test_tables_line_up_and_are_the_same_in_markdown() -> None:
    lines = report.cells_table(results(zproxy=[3], envoy=[2]).rows())
    assert report.aligned(lines, 3).splitlines() == [
        "cell        unit  better  zproxy  envoy  ratio",
        "bulk up x1  MB/s  higher       3      2   1.50",
    ]
    assert report.markdown(lines, 3).splitlines() == [
        "| cell | unit | better | zproxy | envoy | ratio |",
        "| --- | --- | --- | --: | --: | --: |",
        "| bulk up x1 | MB/s | higher | 3 | 2 | 1.50 |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0512, "0.0512"), (12.345, "12.3"), (123.45, "123.5"), (12345.6, "12,346")],
)
def test_figures_have_the_digits_that_a_measurement_is_worth(value: float | None, shown: str) -> None:
    assert report.figure(value) == shown


@pytest.mark.parametrize(("ours", "says"), [(1.6, AIM), (1.5, AIM), (1.2, PASS), (1.15, PASS), (1.1, MISS)])
def test_a_gate_where_more_is_better(ours: float, says: str) -> None:
    [found] = verdicts(results(zproxy=[ours], envoy=[1]).rows())
    assert (found.says, found.worst, found.bound) == (says, ours, ">= 1.15")


@pytest.mark.parametrize(("ours", "says"), [(0.5, AIM), (0.55, AIM), (0.75, PASS), (0.8, MISS)])
def test_a_gate_where_less_is_better(ours: float, says: str) -> None:
    [found] = verdicts(results("bulk up x1 CPU", zproxy=[ours], envoy=[1]).rows())
    assert (found.says, found.bound) == (says, "<= 0.75")


@pytest.mark.parametrize(("ours", "says"), [(1000, AIM), (4096, PASS), (5000, MISS)])
def test_a_gate_on_our_own_figure(ours: float, says: str) -> None:
    [found] = verdicts(results("idle x1000 client", zproxy=[ours], envoy=[1]).rows())
    assert (found.says, found.worst) == (says, ours)


def test_a_gate_is_judged_by_its_worst_cell_and_the_pinned_ones_by_themselves() -> None:
    made = Results()
    for name, ours in (("bulk up x1", 1.6), ("bulk up x8", 1.2), ("pinned bulk up x1", 1.0)):
        made.add(shape(name), "zproxy", Run({name: ours}))
        made.add(shape(name), "envoy", Run({name: 1}))
    assert [(found.what[:6], found.says, found.cell) for found in verdicts(made.rows())] == [
        ("bulk u", PASS, "bulk up x8"),
        ("pinned", MISS, "pinned bulk up x1"),
    ]


def test_a_cell_that_broke_misses_its_gate() -> None:
    made = results(zproxy=[1.6], envoy=[1])
    made.fail(shape("bulk up x8"), "zproxy", "reset")
    [found] = verdicts(row for row in made.rows() if row.cell.unit == "MB/s")
    assert (found.says, found.cell) == (MISS, "bulk up x8")


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.what)
def test_every_gate_has_cells_and_its_aim_is_the_harder_one(gate: Gate) -> None:
    for pattern in gate.patterns:
        own = [cell for shape in SHAPES for cell in shape.cells if fnmatchcase(cell.name, pattern)]
        assert own, pattern
        assert {cell.better for cell in own} == {LOWER if gate.aim < gate.limit else HIGHER}


def said(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_window_is_what_grew_between_start_and_end() -> None:
    samples = iter([{"client": 1.0}, {"client": 3.5}])
    script = """echo start; echo end; echo '{"seconds": 1}'"""
    assert window(said(script), 0, lambda _: next(samples)) == ({"seconds": 1}, {"client": 2.5})


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo start; echo a connection broke >&2; exit 1", "a connection broke"),
        ("echo hello", "said 'hello' instead of 'start'"),
        ("true", "silent"),
    ],
)
def test_a_load_that_breaks_says_why(script: str, error: str) -> None:
    with pytest.raises(LoadError, match=re.escape(error)):
        window(said(script), 0, lambda _: {})


def test_the_kernel_tells_the_cpu_time_and_the_memory_of_a_process() -> None:
    before, everybody = proc.cpu_seconds(os.getpid()), proc.busy_seconds()
    while proc.cpu_seconds(os.getpid()) < before + 0.05:
        sum(range(1000))
    assert everybody <= proc.busy_seconds()
    assert 1 << 20 < proc.pss_bytes(os.getpid()) < 1 << 32


def test_a_process_that_has_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        proc.cpu_seconds((1 << 22) + 1)


def test_lookups_find_something_in_every_mesh_and_are_judged_by_their_growth() -> None:
    found = state.lookups((20, 40), 1)
    assert len({each.name for each in found}) == len(found) == 10
    assert all(len(each.micros) == 2 and min(each.micros) > 0 for each in found)
    shown = state.table([state.Lookup("one", (1.0, 1.9)), state.Lookup("two", (1.0, 2.1))], (20, 40))
    assert shown[0] == ["lookup, us", "target", "", "20", "40", "growth"]
    assert [line[2:] for line in shown[1:]] == [
        ["PASS", "1", "1.9", "1.90"],
        ["MISS", "1", "2.1", "2.10"],
    ]


def test_a_change_is_measured_against_its_target_and_memory_by_record() -> None:
    changes = list(state.changes(20, 1))
    assert [fact.limit for fact in changes] == [state.UPDATE_MS] * 4 + [None]
    choices = list(state.crowd(300, 1))
    assert [fact.limit for fact in choices] == [state.CHOICE_MS] * 2
    assert all(fact.value > 0 for fact in choices)
    assert len(read := list(state.reading(20, 1))) == 8
    assert min(fact.value for fact in read) > 0
    kept = {fact.name: fact.value for fact in state.memory(20)}
    assert 300 < kept["memory of a workload"] < 20_000
    assert kept["memory of the former mesh after one workload changed"] < kept["memory of the mesh"]


def test_the_mesh_that_is_measured_has_what_the_lookups_ask_for() -> None:
    made = state_mesh.records(300)
    known = Mesh.of(*made)
    assert (len(known.workloads), len(known.services), len(known.policies)) == (300, 30, 30)
    for number, service in enumerate(made.services):
        assert known.services_at(state_mesh.vip(number)) == (service,)
        assert len(known.endpoints(service.key)) == state_mesh.PER_SERVICE
        around = [found for _, found in known.services_around(state_mesh.within(number))]
        assert around == ([service] if number % state_mesh.PER_RANGE == 0 else [])
    assert {cidr.length for each in made.services for cidr in each.cidr_vips} == set(state_mesh.LENGTHS)
    assert all(known.policy(key) for each in made.workloads for key in each.authorization_policies)


QUERY = bytes(2) + b"\1\0\0\1\0\0\0\0\0\0\1a\4test\0\0\1\0\1"


@pytest.mark.parametrize("width", [1, 32])
def test_a_resolver_is_asked_as_often_as_it_answers(width: int) -> None:
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.settimeout(5)
        client.connect(server.getsockname())
        with dns_load.resolver(server):
            found = Asker(client, QUERY, width).ask(0.05)
    assert found.rate > 100
    assert 0 < found.p50 <= found.p99


def test_queries_on_a_stream_are_told_apart() -> None:
    near, far = socket.socketpair()

    def serve() -> None:
        with far, far.makefile("rb") as stream:
            while head := stream.read(2):
                query = stream.read(int.from_bytes(head, "big"))
                reply = query[:2] + b"\x80\0\0\1\0\1" + query[8:]
                far.sendall(len(reply).to_bytes(2, "big") + reply)

    thread = threading.Thread(target=serve)
    thread.start()
    with near:
        near.settimeout(5)
        assert Asker(near, QUERY, 8).ask(0.02).rate > 100
    thread.join()


def silence(_: bytes) -> bytes:
    return b""


def refusal(query: bytes) -> bytes:
    return query[:2] + b"\x80\5" + query[4:]


@pytest.mark.parametrize(
    ("answer", "error"), [(silence, "a query was never answered"), (refusal, "answered with rcode 5")]
)
def test_a_query_that_is_not_answered_breaks_the_run(answer: Callable[[bytes], bytes], error: str) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def serve() -> None:
        reply = answer(far.recv(512))
        if reply:
            far.send(reply)

    with near, far:
        near.settimeout(0.2)
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(LoadError, match=error):
            Asker(near, QUERY, 1).ask(1)
        thread.join()


def test_dns_is_compared_with_the_resolver_itself_at_the_same_width() -> None:
    rates = {each: float(number) for number, each in enumerate(dns.KINDS, start=1)}
    seen = {
        (kind, width): [(Window(rate * width * part, 1, 2), 3.0) for part in (1, 100, 2)]
        for kind, rate in rates.items()
        for width in dns.WIDTHS
    }
    lines = dns.lines(seen)
    assert [(line.width, line.rate) for line in lines[:4]] == [(1, 2), (32, 64), (1, 4), (32, 128)]
    assert [line.ratio for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [line.cpu for line in lines[:3]] == [None, None, 3]
    head, direct, *_ = dns.table(lines)
    assert len(head) == len(direct)
    assert direct[-2:] == ["-", "1.00"]

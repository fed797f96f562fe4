"""Steps of a decision, nested as they were taken."""

from zproxy.state.trace import Step, Trace


def test_steps_are_kept_in_order_with_their_depth() -> None:
    trace = Trace()
    trace.note("policy", "matched", "demo/deny")
    with trace:
        trace.note("rule", "no match")
        with trace:
            trace.note("clause", "no match", "port 80")
    trace.note("verdict", "denied")
    assert [(step.subject, step.depth) for step in trace.steps] == [
        ("policy", 0), ("rule", 1), ("clause", 2), ("verdict", 0),
    ]  # fmt: skip
    assert trace.steps[0] == Step("policy", "matched", "demo/deny", 0)

"""Which verdicts make a status fail."""

from zproxy.node.findings import Status


def test_only_what_is_missing_or_otherwise_is_bad() -> None:
    assert [status for status in Status if status.is_bad] == [Status.MISSING, Status.DRIFTED]

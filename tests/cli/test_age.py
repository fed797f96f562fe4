"""Ages, compared with what kubectl prints."""

import pytest
from zproxy_cli.age import age

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0.9, "0s"),
        (5, "5s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (3 * MINUTE + 20, "3m20s"),
        (10 * MINUTE + 59, "10m"),
        (179 * MINUTE, "179m"),
        (3 * HOUR, "3h"),
        (4 * HOUR + 5 * MINUTE, "4h5m"),
        (47 * HOUR + 59 * MINUTE, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (9 * DAY + 3 * HOUR, "9d"),
        (2 * YEAR + DAY, "2y1d"),
        (9 * YEAR + DAY, "9y"),
    ],
)
def test_the_longer_the_coarser(seconds: float, text: str) -> None:
    assert age(seconds) == text

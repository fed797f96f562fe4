"""A time of day that moves only when a test says so."""

from datetime import UTC, datetime, timedelta


class WallClock:
    """Callable like `utc_now`."""

    def __init__(self, now: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, span: timedelta) -> None:
        self.now += span

"""What balancing did on one worker: endpoints left out for a while, and connections tried elsewhere."""


class BalancingCounts:
    """Counters since start."""

    __slots__ = ("ejections", "retries")

    def __init__(self) -> None:
        self.ejections = 0
        """Times that an endpoint was left out for a while, because it could not be reached."""
        self.retries = 0
        """Connections that were given another endpoint."""

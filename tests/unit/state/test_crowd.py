"""Many endpoints: one by one they are what all of them are, and nobody looks at all to see one."""

from tests.support.mesh import workload
from zproxy.model.workload import Workload
from zproxy.state.choose import Candidate
from zproxy.state.crowd import Crowd

PODS = [workload(f"demo/w{number}", f"10.0.0.{number}") for number in range(6)]


class Made:
    """A crowd of PODS, of which those with an even number can be reached; counts who was looked at."""

    def __init__(self, pods: list[Workload]) -> None:
        self.looks = 0
        self.pods = pods
        self.crowd = Crowd(pods, self.candidate, self.all)

    def candidate(self, pod: Workload) -> Candidate | None:
        self.looks += 1
        return Candidate(pod, 80, 0) if int(pod.name[1:]) % 2 == 0 else None

    def all(self) -> tuple[Candidate, ...]:
        return tuple(found for each in self.pods if (found := self.candidate(each)) is not None)


def names(found: object) -> list[str]:
    assert isinstance(found, Crowd | tuple)
    return [each.workload.name for each in found]


def test_it_is_the_sequence_of_all_who_can_be_reached() -> None:
    crowd = Made(PODS).crowd
    assert names(crowd) == names(crowd.all()) == ["w0", "w2", "w4"]
    assert (len(crowd), crowd[1], crowd[-2:]) == (3, crowd.at(2), crowd.all()[1:])
    assert crowd.at(2) in crowd


def test_a_place_may_be_nobodys() -> None:
    made = Made(PODS)
    assert made.crowd.places == 6
    assert [made.crowd.at(place) is None for place in range(6)] == [False, True] * 3
    assert made.looks == 6


def test_one_who_is_known_is_found_without_the_others() -> None:
    made = Made(PODS)
    found = made.crowd.of(PODS[4])
    assert found is not None
    assert found.workload is PODS[4]
    assert made.crowd.of(PODS[5]) is None
    assert made.looks <= 2 * 2, "of each: the first, to see that there is somebody, and itself"


def test_that_there_is_anybody_is_seen_at_one_look() -> None:
    made = Made(PODS)
    assert made.crowd
    assert made.looks == 1
    assert Made(PODS[1:3]).crowd, "the second can be reached"
    assert not Made(PODS[1:2]).crowd

"""The benchmarks' clockwork."""

from benchmarks.harness.timing import alternate


def test_candidates_alternate_and_are_compared_within_a_round():
    now, calls = 0.0, []

    def candidate(name: str, seconds: list[float]):
        def work():
            nonlocal now
            calls.append(name)
            now += seconds[calls.count(name) - 1]

        return work

    # the second round is a slow one for both
    timed = alternate(
        {"a": candidate("a", [9, 4, 40, 4]), "b": candidate("b", [9, 2, 20, 1])}, rounds=3, clock=lambda: now
    )
    assert calls == ["a", "b"] * 4
    assert timed["a"] == {"seconds": 4, "speedup": 1, "runs": [4, 40, 4]}
    assert timed["b"] == {"seconds": 2, "speedup": 2, "runs": [2, 20, 1]}


def test_a_candidate_may_time_itself():
    timed = alternate({"a": lambda: 6.0, "b": lambda: 2.0}, rounds=2, clock=lambda: 0.0)
    assert timed["a"]["seconds"] == 6 and timed["b"] == {"seconds": 2, "speedup": 3, "runs": [2, 2]}

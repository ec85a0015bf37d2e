"""The arithmetic of the benchmarks."""

import pytest

from bench.world import CLOCK_TICK, Comparison, Round

# Durations and times of responses, in a round from 10 to 11.
LATE = [(2.0, 12.0), (3.0, 13.0), (4.0, 14.0), (4.0, 14.0)]
MIXED = [(0.5, 10.5), (0.5, 11.0), *LATE]


@pytest.mark.parametrize(("responses", "rate"), [(MIXED, 2.0), (LATE, 1.0)])
def test_a_round_on_a_busy_machine_divides_by_nothing_that_is_zero(
    responses: list[tuple[float, float]], rate: float
) -> None:
    round_ = Round.of(responses, began=10, until=11, cpu=0, postgres_cpu=0, statements=0)

    assert round_.rate == rate
    assert round_.cpu == pytest.approx(1000 * CLOCK_TICK / len(responses))
    found = Comparison("any", [round_], [round_])
    assert found.ratios("rate") == found.ratios("cpu") == found.ratios("postgres_cpu") == [1.0]

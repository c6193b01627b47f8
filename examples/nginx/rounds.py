"""Figures of alternating rounds: medians, their spread, and the ratios that mean something."""

import statistics

FEWEST_ROUNDS = 3
WIDEST = 2  # from the lower to the upper quartile of a ratio's rounds, as a factor


def order_of(round_number, ways):
    """Each way goes first in turn, so that none profits from a drift."""
    return list(ways) if round_number % 2 == 0 else list(ways)[::-1]


def median(values):
    return statistics.median(values)


def spread(values):
    """From the least to the most, as a part of the median."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0


class Ratio:
    """Of the medians, in the direction in which more is better; by rounds to say how sure it is."""

    def __init__(self, ours, theirs, less_is_better=False):
        def compare(one, other):
            better, worse = (other, one) if less_is_better else (one, other)
            return better / worse
        self.rounds = [compare(*pair) for pair in zip(ours, theirs)]
        self.value = compare(median(ours), median(theirs))
        self.low, self.high = min(self.rounds), max(self.rounds)

    def doubt(self):
        """Why the ratio means nothing, or empty. One odd round among many says little."""
        if len(self.rounds) < FEWEST_ROUNDS:
            return "too few rounds"
        lower, _, upper = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return "rounds differ too much" if upper > WIDEST * lower else ""

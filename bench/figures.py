"""What was measured of one case: a figure of each way, with its rounds; as a line of a table and as rows."""

from dataclasses import dataclass, field

from rounds import Ratio, median, spread

BASELINE = "kernel"
LIMIT = "limit"


@dataclass(frozen=True)
class Kind:
    """Of a figure: its name, which has the unit, and what a table calls it."""
    name: str
    title: str
    less_is_better: bool = False
    is_compared: bool = True  # else no ratios: a part of something, which may be nothing


@dataclass
class Figure:
    keys: dict   # what tells the case from the others
    title: str
    kind: Kind
    ways: tuple
    rounds: dict = field(default_factory=dict)     # by way: its rounds
    problems: dict = field(default_factory=dict)   # by way: why there is nothing, or less than it seems
    details: dict = field(default_factory=dict)    # by way: other figures of the same runs, each with rounds
    baseline: str = BASELINE

    def add(self, way, value, details):
        self.rounds.setdefault(way, []).append(value)
        for name, other in details.items():
            self.details.setdefault(way, {}).setdefault(name, []).append(other)

    def ratio(self, way, to=None):
        """None if there is nothing to compare."""
        ours, theirs = self.rounds.get(way), self.rounds.get(to or self.baseline)
        if way == (to or self.baseline) or not self.kind.is_compared:
            return None
        if not ours or not theirs or 0 in (*ours, *theirs):
            return None
        return Ratio(ours, theirs, self.kind.less_is_better)

    def row(self, way):
        row = {**self.keys, "way": way, "figure": self.kind.name}
        if self.problems.get(way):
            row["problem"] = self.problems[way]
        values = self.rounds.get(way)
        row["rounds"] = len(values or [])
        if not values:
            return row
        row |= {self.kind.name: median(values), "spread": spread(values), "values": values}
        row |= {name: median(others) for name, others in self.details.get(way, {}).items()}
        row |= ratio_fields("ratio", self.ratio(way))
        if LIMIT in self.ways and way != LIMIT:
            row |= ratio_fields("of_limit", self.ratio(way, LIMIT))
        return row

    def rows(self):
        return [self.row(way) for way in self.ways if self.rounds.get(way) or self.problems.get(way)]


def ratio_fields(name, ratio):
    """Without a number where it would mean nothing."""
    if ratio is None:
        return {}
    doubt = ratio.doubt()
    return {name: None if doubt else ratio.value, f"{name}_rounds": ratio.rounds,
            **({f"{name}_doubt": doubt} if doubt else {})}


# ---- a table -------------------------------------------------------------------------------

def amount(value):
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratio_text(ratio):
    if ratio is None:
        return "", ""
    rounds = f"{factor(ratio.low)}..{factor(ratio.high)}"
    return ("?" if ratio.doubt() else factor(ratio.value)), rounds


def factor(value):
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


class Table:
    """Columns of ways; a line for each figure as it comes."""
    WIDTH = 11

    def __init__(self, ways, cases):
        self.ways, self.doubts, self.told = list(ways), set(), None
        self.not_compared = (cases[0].baseline if cases else BASELINE, LIMIT)
        self.title_width = max(len(figure.title) for case in cases for figure in case.figures())

    def heading(self):
        cells = []
        for way in self.ways:
            cells.append(f"{way:>{self.WIDTH}}")
            if way not in self.not_compared:
                cells.append(f"{'ratio':>7} {'(rounds)':>15}")
        return f"{'':<{self.title_width}} " + " ".join(cells)

    def line(self, figure):
        cells = []
        for way in self.ways:
            values = figure.rounds.get(way)
            cells.append(f"{amount(median(values)) if values else '-':>{self.WIDTH}}")
            if way not in self.not_compared:
                ratio = figure.ratio(way)
                cells.append("{:>7} {:>15}".format(*ratio_text(ratio)))
                self.doubts.update([ratio.doubt()] if ratio and ratio.doubt() else [])
        return f"{figure.title:<{self.title_width}} {' '.join(cells)}  {self._notes(figure)}".rstrip()

    def _notes(self, figure):
        """Not again those of another figure of the same case."""
        notes = "; ".join(f"{way}: {why}" for way, why in figure.problems.items() if figure.rounds.get(way))
        told, self.told = self.told, (figure.keys, notes)
        return "" if told == self.told else notes

    def remarks(self, figures):
        """What a reader has to know besides, each once."""
        for doubt in sorted(self.doubts):
            yield f"?: no ratio: {doubt}"
        missing = [f"{way}: {why}" for figure in figures for way, why in figure.problems.items()
                   if not figure.rounds.get(way)]
        yield from dict.fromkeys(missing)

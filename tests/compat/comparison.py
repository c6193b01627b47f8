"""Two runs of a program side by side, and what may differ between them."""
import re

ROW = re.compile(r"^\|\s*`test: ([^`]+)`\s*\|(.*)$")
THE_RUN = "the run"  # as a step: whether it came to its end
TROUBLE = ("failed", "error", "hang", "crash", "missing", "unexpected success")


def expected_differences(page):
    """{PROGRAM/STEP: whether it may come out alike too}, from the rows of docs/divergences.md."""
    with open(page) as file:
        rows = filter(None, map(ROW.match, file))
        return {row[1]: "sometimes" in row[2] for row in rows}


def differing(first, second):
    """[(step, outcome in first, in second)] for every step that came out differently."""
    found = []
    for step in dict.fromkeys([*first["steps"], *second["steps"]]):
        one, other = (side["steps"].get(step, {"outcome": "missing"}) for side in (first, second))
        same = one["outcome"] == other["outcome"] and one.get("values") == other.get("values")
        if not same:
            found.append((step, describe(one), describe(other)))
    if bool(first.get("error")) != bool(second.get("error")):
        found.append((THE_RUN, first.get("error", "ok"), second.get("error", "ok")))
    return found


def describe(step):
    words = [step["outcome"], step.get("why", ""), " ".join(step.get("values", []))]
    return ": ".join(filter(None, words))[:300]


class Verdict:
    """What comes of a program's runs. `again` is a second native run, made if something differs."""

    def __init__(self, program, native, preloaded, again, expected):
        self.broken = [f"{step}: {describe(found)}" for step, found in native["steps"].items()
                       if found["outcome"] in TROUBLE]
        if native.get("error"):
            self.broken.append(native["error"])
        unsteady = {step for step, _, _ in differing(native, again)} if again else set()
        prefix = program.name + "/"
        rows = {row.removeprefix(prefix): may_pass for row, may_pass in expected.items()
                if row.startswith(prefix)}
        self.unsteady, self.expected, self.failures = [], [], []
        for step, one, other in differing(native, preloaded):
            kind = (self.unsteady if step in unsteady else self.expected if step in rows
                    else self.failures)
            kind.append((step, one, other))
        differ = {step for step, _, _ in self.expected}
        for step, may_pass in rows.items():
            run = step in preloaded["steps"] or step == THE_RUN
            if run and step not in differ and not may_pass:
                self.failures.append((step, "expected to differ", "does not differ"))
        if preloaded.get("coordinator"):
            self.failures.append(("the coordinator", "ok", preloaded["coordinator"]))
        if not program.on_kernel and not accelerated(preloaded):
            self.failures.append(("acceleration", "", "nothing was accelerated"))

    @property
    def same(self):
        return not self.failures

    def text(self):
        for title, rows in (("differs", self.failures), ("differs as documented", self.expected),
                            ("differs between native runs", self.unsteady)):
            for step, one, other in rows:
                yield f"  {title}: {step}\n      native:    {one}\n      preloaded: {other}"


def accelerated(side):
    status = side.get("status", {})
    return sum(status.get(key, 0) for key in ("accelerated_total", "pipes_total", "socketpairs_total", "unix_total"))

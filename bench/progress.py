"""How far a long measurement is, and about how long it still takes; on stderr."""

import sys
import time

SECONDS_BETWEEN_LINES = 10  # where it is not a terminal, which shows one line that changes


class Progress:
    """Counts in estimated seconds; corrects the estimate by how long the part that is done took."""

    def __init__(self, seconds, stream=sys.stderr):
        self.total, self.done, self.stream = max(seconds, 1e-9), 0.0, stream
        self.start = self.last_line = time.monotonic()
        self.is_terminal = stream.isatty()
        self.width = 0
        if not self.is_terminal:
            print(f"about {duration(seconds)}", file=stream, flush=True)

    def step(self, seconds, what):
        """Begins something that is estimated to take so long."""
        now = time.monotonic()
        left = (self.total - self.done) * self._pace(now)
        text = f"{min(self.done / self.total, 1):.0%}, about {duration(left)} left: {what}"
        if self.is_terminal:
            self._show(text)
        elif now - self.last_line >= SECONDS_BETWEEN_LINES:
            print(text, file=self.stream, flush=True)
            self.last_line = now
        self.done += seconds

    def skip(self, seconds):
        self.total = max(self.total - seconds, self.done, 1e-9)

    def clear(self):
        """Before something else is printed."""
        if self.is_terminal:
            self._show("")

    def _pace(self, now):
        """Seconds for each estimated one; 1 until there is something to go by."""
        return (now - self.start) / self.done if self.done > 2 else 1

    def _show(self, text):
        text = text[:100]
        self.stream.write("\r" + text.ljust(self.width) + ("" if text else "\r"))
        self.stream.flush()
        self.width = len(text)


def duration(seconds):
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

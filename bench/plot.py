"""Lines in a frame, both axes logarithmic, as SVG that stands by itself."""

import math
from html import escape

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Plot:
    WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 70, 48, 34, 20
    LEGEND_WIDTH, MOST_X_LABELS = 70, 12

    def __init__(self, series, colours, titles, is_binary=False):
        """`series`: points by name. `is_binary`: K is 1024 on the x axis."""
        self.series = {name: line for name, line in series.items() if line}
        points = [point for line in self.series.values() for point in line]
        self.x = self.limits([point[0] for point in points])
        self.y = self.limits([point[1] for point in points])
        self.colours, self.is_binary = colours, is_binary
        self.title, self.x_title, self.y_title = (escape(title) for title in titles)

    @staticmethod
    def limits(values):
        low, high = math.log10(min(values)), math.log10(max(values))
        return (low - 0.05, max(high, low + 0.3) + 0.05)

    def place(self, x, y):
        share = [(math.log10(v) - low) / (high - low) for v, (low, high) in ((x, self.x), (y, self.y))]
        return (self.LEFT + share[0] * (self.WIDTH - self.LEFT - self.RIGHT),
                self.HEIGHT - self.BOTTOM - share[1] * (self.HEIGHT - self.BOTTOM - self.TOP))

    @staticmethod
    def ticks(limits):
        factors = (1, 2, 5) if limits[1] - limits[0] < 4 else (1,)
        for power in range(math.floor(limits[0]), math.ceil(limits[1]) + 1):
            for factor in factors:
                value = factor * 10.0 ** power
                if limits[0] <= math.log10(value) <= limits[1]:
                    yield value

    @staticmethod
    def short(value, is_binary=False):
        units = ((1 << 20, "Mi"), (1 << 10, "Ki")) if is_binary else UNITS
        for size, unit in units:
            if value >= size:
                return f"{value / size:g}{unit}"
        return f"{value:g}"

    def svg(self):
        return "\n".join([*self._frame(), *self._y_axis(), *self._x_axis(), *self._lines(), "</svg>"]) + "\n"

    def _frame(self):
        return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.WIDTH} {self.HEIGHT}" '
                'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
                f'<text x="{self.LEFT}" y="20" font-size="14">{self.title}</text>']

    def _y_axis(self):
        left, right = self.LEFT, self.WIDTH - self.RIGHT
        for value in self.ticks(self.y):
            _, y = self.place(10 ** self.x[0], value)
            yield (f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/><text x="{left - 6}" y="{y + 4:.1f}" '
                   f'text-anchor="end">{self.short(value)}</text>')
        yield (f'<text transform="translate(16 {self.HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
               f'{self.y_title}</text>')

    def _x_axis(self):
        values = sorted({point[0] for line in self.series.values() for point in line})
        for value in values[::math.ceil(len(values) / self.MOST_X_LABELS)]:
            x, _ = self.place(value, 10 ** self.y[0])
            yield (f'<text x="{x:.1f}" y="{self.HEIGHT - self.BOTTOM + 16}" text-anchor="middle">'
                   f'{self.short(value, self.is_binary)}</text>')
        middle = (self.LEFT + self.WIDTH - self.RIGHT) / 2
        yield f'<text x="{middle}" y="{self.HEIGHT - 10}" text-anchor="middle">{self.x_title}</text>'

    def _lines(self):
        for number, (name, line) in enumerate(self.series.items()):
            places = [self.place(*point) for point in line]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline points="{path}" fill="none" stroke="{self.colours[name]}" stroke-width="2"/>'
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{self.colours[name]}"/>' for x, y in places)
            yield (f'<text x="{self.WIDTH - self.RIGHT - self.LEGEND_WIDTH}" y="{self.TOP + 16 + 16 * number}" '
                   f'fill="{self.colours[name]}">{escape(name)}</text>')

"""The page of `sluice bench all`: it stands by itself, plots and all."""

from html import escape

import request_questions
from figures import BASELINE, LIMIT, amount, ratio_text
from plot import Plot
from rounds import median, spread

COLOURS = {"kernel": "#666666", "sockmap": "#b8860b", "sluice": "#0b6e99", "limit": "#7a4fa3",
           **request_questions.COLOURS}
STYLE = """
body { font-family: sans-serif; max-width: 80em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 0.85em; }
td, th { border: 1px solid #ccc; padding: 0.2em 0.6em; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.plots { display: flex; flex-wrap: wrap; gap: 1em; } .plots svg { width: 38em; }
.warning { background: #fff0d0; padding: 0.5em 1em; }
small { color: #666; }
"""
REQUEST_FIELDS = ("requests_per_s", "p50_us", "p99_us", "cycles_per_request")
REQUEST_KEYS = ("clients", "active", "depth", "queues", "poll")


def page(machine, warning, parts):
    title = f"Sluice, measured on {machine['date']}"
    warnings = [warning] if warning else []
    if machine["interrupted"]:
        warnings.append("the run was interrupted: this is what was measured so far")
    return "\n".join([
        "<!DOCTYPE html>", f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style></head><body>", f"<h1>{title}</h1>",
        *(f'<p class="warning">{escape(text[0].upper() + text[1:])}.</p>' for text in warnings),
        *machine_section(machine), *(line for part in parts for line in section(part)), "</body></html>"]) + "\n"


def machine_section(machine):
    facts = {"CPU": f"{machine['cpus']} of {machine['cpu']}", "Topology": "<br>".join(map(escape, machine["topology"])),
             "Kernel": escape(machine["kernel"]), "Commit": machine["commit"] or "not known",
             "Build": machine["buildtype"], "CPUs used by others, before and after": " and ".join(
                 f"{machine[when]['busy_cpus']:.2f}" for when in ("load_before", "load_after")),
             "Run": "quick" if machine["quick"] else "full"}
    yield "<table>" + "".join(f"<tr><th>{name}</th><td style='text-align:left'>{value}</td></tr>"
                              for name, value in facts.items()) + "</table>"
    yield ("<p>Each figure is the median of alternating rounds; ± is the spread of these, from the least to the most, as a "
           "part of it: the noise. A ratio is to the kernel's figure, so that more is better, with those of the rounds "
           "beside it; where these differ too much there is a question mark instead.</p>")


def section(part):
    yield f"<h2>{escape(part.title)}</h2>"
    files = [f"requests-{name}" for name in part.rows] or [part.name]
    yield "<p>Data: " + ", ".join(f'<a href="{file}.{kind}">{file}.{kind}</a>'
                                  for file in files for kind in ("json", "csv")) + "</p>"
    yield from (f'<p class="warning">{escape(problem)}</p>' for problem in part.problems)
    yield '<div class="plots">'
    yield from plots(part)
    yield "</div>"
    if part.rows:
        yield from (requests_table(name, rows) for name, rows in part.rows.items())
    if part.figures:
        yield figures_table(part.figures, part.ways)


# ---- tables --------------------------------------------------------------------------------

def table(heading, lines):
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>\n" for line in lines)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def figures_table(figures, ways):
    heading = ["", *(title for way in ways for title in ((way,) if way in (BASELINE, LIMIT) else (way, "ratio")))]
    missing = {f"{way}: {why}" for figure in figures for way, why in figure.problems.items()}
    remarks = "".join(f"<br>{escape(text)}" for text in sorted(missing))
    return table(heading, [figure_cells(figure, ways) for figure in figures]) + f"<p><small>{remarks[4:]}</small></p>"


def figure_cells(figure, ways):
    cells = [escape(figure.title)]
    for way in ways:
        values = figure.rounds.get(way)
        cells.append(f"{amount(median(values))} <small>±{spread(values):.0%}</small>" if values else "-")
        if way not in (BASELINE, LIMIT):
            ratio, rounds = ratio_text(figure.ratio(way))
            cells.append(f"{ratio} <small>{rounds}</small>")
    return cells


def requests_table(name, rows):
    def cell(row, field):
        text = "-" if row[field] is None else amount(row[field])
        return text + (f" <small>±{row[field + '_spread']:.0%}</small>" if f"{field}_spread" in row else "")
    return f"<h3>{escape(name)}</h3>" + table(
        [*REQUEST_KEYS, *REQUEST_FIELDS],
        [[*(escape(str(row[key])) for key in REQUEST_KEYS), *(cell(row, field) for field in REQUEST_FIELDS)] for row in rows])


# ---- plots ---------------------------------------------------------------------------------

def plots(part):
    for name, rows in part.rows.items():
        if name in request_questions.PLOTS and rows:
            yield request_questions.plot(name, rows)
    drawn = {"ipc": ("size", ("kind", "measure", "cores"), "bytes"), "pairs": ("pairs", ("kind", "cores"), "pairs"),
             "connect": ("variant", ("app", "connections"), "workers"), "apps": ("connections", ("app", "variant"), "connections")}
    if part.name in drawn and part.figures:
        x, of, x_title = drawn[part.name]
        yield from (line_plot(figures, x, x_title) for figures in grouped(part.figures, x, of))


def grouped(figures, x, of):
    """Those that differ in x alone, of groups with more than one of them."""
    groups = {}
    for figure in figures:
        if x in figure.keys and any(figure.rounds.values()):
            groups.setdefault(tuple(figure.keys[key] for key in of), []).append(figure)
    return [group for group in groups.values() if len(group) > 1]


def line_plot(figures, x, x_title):
    def place(figure):
        value = figure.keys[x]
        return int(value.split()[0]) if isinstance(value, str) else value
    lines = {way: [(place(figure), median(figure.rounds[way])) for figure in figures if figure.rounds.get(way)]
             for way in figures[0].ways}
    keys = figures[0].keys
    title = ", ".join(str(keys[key]) for key in ("kind", "app", "measure", "variant", "cores") if keys.get(key) and key != x)
    title = title.replace(", two", ", two cores").replace(", one", ", one core")
    return Plot(lines, COLOURS, (title, x_title, figures[0].kind.title), is_binary=x == "size").svg()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the figures of scripts/bench as an SVG picture.

Each row of the table has a line for each server with two bars: throughput to
the left, processor time per operation to the right. Rows have units of their
own, so bars are relative to the longest one of their row, and the figures
stand beside them. Nothing but the standard library is needed.
"""
from xml.sax.saxutils import escape

COLOURS = {"blockferry": "#d1495b", "fio": "#66635b"}
OTHER_COLOURS = ("#30638e", "#5b8fb9", "#00798c", "#7fb7be", "#edae49",
                 "#8d96a3", "#b0a990")
BAR = 13
GAP = 10
LABEL = 190
NAME = 120
WIDTH = 300  # of the longest bar, in each half
VALUE = 90
TOP = 64
FONT = "font-family=\"sans-serif\" font-size=\"11\""


def text(x, y, words, more=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{escape(words)}</text>'


def bar(x, y, share, colour, name, words):
    """A bar, what it stands for as its title, and the figure beside it."""
    length = max(share * WIDTH, 1)
    return (f'<rect x="{x:.0f}" y="{y:.0f}" width="{length:.1f}" '
            f'height="{BAR - 2}" fill="{colour}"><title>'
            f'{escape(name)}</title></rect>'
            + text(x + length + 4, y + BAR - 4, words))


def units(row):
    """How the figures of a row read: (throughput, CPU per operation)"""
    if "4k" in row:
        return (lambda rate: f"{rate / 1000:.3g}k/s",
                lambda cpu: f"{cpu:.3g} µs")
    if row.startswith("conn/"):
        return lambda rate: f"{rate:.0f}/s", lambda cpu: f"{cpu:.0f} µs"
    return (lambda rate: f"{rate:.0f} MiB/s", lambda cpu: f"{cpu:.0f} µs/MiB")


def colours_of(rows):
    """{server: colour}, in the order of the table."""
    names = []
    for cells in rows.values():
        names += [name for name in cells if name not in names]
    others = [name for name in names if name not in COLOURS]
    return {name: COLOURS.get(name) or
            OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)]
            for name in names}


def draw_row(row, cells, colours, y):
    """Returns the elements of a row, and where the next one begins."""
    out = [text(8, y + BAR - 4, row, 'font-weight="bold"')]
    show_rate, show_cpu = units(row)
    longest = {key: max((c.get(key) or 0 for c in cells.values()),
                        default=0) or 1 for key in ("rate", "cpu_us")}
    left, right = LABEL + NAME, LABEL + NAME + WIDTH + VALUE
    for name, cell in cells.items():
        out.append(text(LABEL, y + BAR - 4, name))
        if "rate" in cell:
            out.append(bar(left, y, cell["rate"] / longest["rate"],
                           colours[name], f"{row} {name}: throughput",
                           show_rate(cell["rate"])))
        else:
            out.append(text(left, y + BAR - 4, "fails"))
        if cell.get("cpu_us") is not None:
            out.append(bar(right, y, cell["cpu_us"] / longest["cpu_us"],
                           colours[name], f"{row} {name}: CPU",
                           show_cpu(cell["cpu_us"])))
        y += BAR
    return out, y + GAP


def draw(figures):
    """The picture of what scripts/bench wrote as JSON."""
    rows = figures["rows"]
    colours = colours_of(rows)
    body, y = [], TOP
    for row, cells in rows.items():
        elements, y = draw_row(row, {n: c for n, c in cells.items()
                                     if isinstance(c, dict)}, colours, y)
        body += elements
    note = "; ".join(str(figures[key]) for key in (
        "date", "processor", "kernel", "command") if figures.get(key))
    if figures.get("busy"):
        note += "; THE MACHINE WAS BUSY: these figures are worth nothing"
    width = LABEL + NAME + 2 * (WIDTH + VALUE)
    head = [text(8, 20, "NBD servers on the same file: throughput (longer is "
                 "better), CPU time of the server per operation (shorter is "
                 "better)", 'font-weight="bold" font-size="13"'),
            text(8, 38, note, 'fill="#555"'),
            text(LABEL + NAME, TOP - 8, "throughput", 'fill="#555"'),
            text(LABEL + NAME + WIDTH + VALUE, TOP - 8, "CPU per operation",
                 'fill="#555"')]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
            f'height="{y}" viewBox="0 0 {width} {y}" {FONT}>\n'
            f'<rect width="{width}" height="{y}" fill="white"/>\n'
            + "\n".join(head + body) + "\n</svg>\n")

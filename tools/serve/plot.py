"""One line in an SVG that stands alone, light or dark as its reader is."""

import html
import math

WIDTH, HEIGHT = 800, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 772, 56, 300

STYLE = """
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; }
  text { fill: #5c6570; font: 13px system-ui, sans-serif; }
  .title { fill: #1b1f24; font-size: 17px; font-weight: 600; }
  .axis { fill: #1b1f24; }
  .grid { stroke: #d9dde3; }
  .line { fill: none; stroke: #3b6fb6; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14171b; }
    text { fill: #9aa4b0; }
    .title, .axis { fill: #e6e9ed; }
    .grid { stroke: #333a43; }
    .line { stroke: #7fb0f5; }
  }
"""


def ticks(high: float) -> list[float]:
    """Round values from 0 to the first that is not below `high`."""
    power = 10 ** math.floor(math.log10(high / 5))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= high / 5)
    return [n * step for n in range(math.ceil(high / step) + 1)]


def plot(title: str, across: str, up: str, points: list[tuple[float, float]]) -> str:
    """A line through points, both axes from 0."""
    last = max(max(x for x, _ in points), 1e-9)
    rows, columns = ticks(max(max(y for _, y in points), 1e-9)), ticks(last)
    columns = [tick for tick in columns if tick <= last * 1.0001]

    def place(x: float, y: float) -> tuple[float, float]:
        down = BOTTOM - y / rows[-1] * (BOTTOM - TOP)
        return LEFT + x / last * (RIGHT - LEFT), down

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="32">{html.escape(title)}</text>',
    ]
    for tick in rows:
        _, y = place(0, tick)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in columns:
        x, _ = place(tick, 0)
        out.append(f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{tick:g}</text>')
    middle = (TOP + BOTTOM) / 2
    out += [
        f'<text class="axis" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 16}" text-anchor="middle">'
        f"{html.escape(across)}</text>",
        f'<text class="axis" transform="translate(22 {middle}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(up)}</text>',
    ]
    places = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
    out.append(f'<polyline class="line" points="{places}"/>')
    return "\n".join(out) + "\n</svg>\n"

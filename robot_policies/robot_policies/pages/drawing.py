"""Figures as SVG that follows the page's colours and font.

Colours are drawn as sentinels and replaced by CSS variables, so one figure serves the light and the dark
page; text stays text.
"""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator

# What is drawn -> what the page shows. The values are arbitrary but must not occur by chance.
SENTINELS = {
    "ink": "#010203",
    "muted": "#020304",
    "grid": "#030405",
    "accent": "#040506",
    "good": "#050607",
    "bad": "#060708",
    "second": "#070809",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "robot-policies",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": SENTINELS["ink"],
    "axes.edgecolor": SENTINELS["grid"],
    "axes.labelcolor": SENTINELS["muted"],
    "axes.titlecolor": SENTINELS["ink"],
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": SENTINELS["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": SENTINELS["grid"],
    "ytick.color": SENTINELS["grid"],
    "xtick.labelcolor": SENTINELS["muted"],
    "ytick.labelcolor": SENTINELS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 9,
}


# Around the axes, in inches: what labels of the usual length and a title take. `to_svg` measures what they really
# take; from here that changes the height of the axes by nothing and so leaves their ticks as they were measured.
_MARGINS = {"left": 0.57, "bottom": 0.49, "right": 0.1, "top": 0.31}


def new_panels(width: float, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with axes side by side; draw inside ``mpl.rc_context(STYLE)``."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=_MARGINS["left"] / width,
        bottom=_MARGINS["bottom"] / height,
        right=1 - _MARGINS["right"] / width,
        top=1 - _MARGINS["top"] / height,
    )
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """`new_panels` with one pair of axes."""
    figure, (axes,) = new_panels(width, height, 1)
    return figure, axes


def log_scale(axes: Axes) -> None:
    """Logarithmic y with plain numbers: 0.1, 0.05, 0.02."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    for format_axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        format_axis(FuncFormatter(lambda value, _: f"{value:g}"))


def to_svg(figure: Figure, description: str) -> str:
    """Serialise, with sentinels replaced by the page's variables."""
    buffer = io.StringIO()
    # Once, by hand: a layout of the figure's own would measure every text four times.
    TightLayoutEngine(pad=0.4).execute(figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for name, colour in SENTINELS.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"font: ([^;\"]*?)(?:'[^']*'|sans-serif)[^;\"]*", r"font: \1var(--font)", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)

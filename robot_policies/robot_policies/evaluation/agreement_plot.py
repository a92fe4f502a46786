"""The calibration plot: success in the reference against success in the twin, one point a policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robot_policies.evaluation.agreement import Agreement

INK, MUTED, ACCENT = "#1c2430", "#6b7683", "#2f6fb3"


def plot_agreement(
    path: Path,
    agreements: Mapping[str, Agreement],
    *,
    reference: str = "surrogate",
    what: str = "success rate",
) -> None:
    """Write a PNG with one panel for each agreement, e.g. of the twin and of an uncorrected simulator.

    Policies on the diagonal do as well in both worlds; the bars are the rates' intervals. Points are numbered, best
    in the reference first, and a legend beneath names them.

    Args:
        path: File to write; its folder is made.
        agreements: Title of the panel -> agreement. All must have the same reference to be comparable.
        reference: What the world on the x axis is called.
        what: What outcomes are, for the axes.

    Raises:
        ValueError: The agreements are of different policies.
    """
    panels = list(agreements.items())
    names = [p.policy for p in panels[0][1].policies]
    if any({p.policy for p in agreement.policies} != set(names) for _, agreement in panels):
        raise ValueError("the panels show different policies; compare the same family")
    lines = -(-len(names) // 4)
    figure = Figure(figsize=(4.6 * len(panels) + 0.4, 5.0 + 0.2 * lines), layout="constrained")
    for axes, (title, agreement) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _panel(axes, agreement, {name: i + 1 for i, name in enumerate(names)})
        figures = "   ".join(f"{name} {value}" for name, value in agreement.rows()[::2])
        axes.set_title(f"{title}\n", loc="left", fontsize=11, fontweight="bold", color=INK)
        axes.text(0, 1.02, figures, transform=axes.transAxes, fontsize=8, color=MUTED)
        axes.set_xlabel(f"{what}, {reference}", color=MUTED)
        axes.set_ylabel(f"{what}, {title}", color=MUTED)
    keys = [f"{i + 1} {name}" for i, name in enumerate(names)]
    rows = ["    ".join(keys[i : i + 4]) for i in range(0, len(keys), 4)]
    figure.supxlabel("\n".join(rows), fontsize=8, color=MUTED)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _panel(axes: Axes, agreement: Agreement, numbers: Mapping[str, int]) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
    for policy in agreement.policies:
        x, y = policy.reference, policy.twin
        axes.plot([x.low, x.high], [y.value] * 2, color=ACCENT, alpha=0.35, lw=1.5)
        axes.plot([x.value] * 2, [y.low, y.high], color=ACCENT, alpha=0.35, lw=1.5)
        axes.plot(x.value, y.value, "o", color=ACCENT, ms=14, mec="white", mew=1.2)
        axes.annotate(
            str(numbers[policy.policy]),
            (x.value, y.value),
            ha="center",
            va="center_baseline",
            fontsize=8,
            color="white",
        )
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.grid(color="#e4e8ec", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9d0d7")

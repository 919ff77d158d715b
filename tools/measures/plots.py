"""Plots of the documentation, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measures.record import figures
from measures.tables import how, label_sets

STYLE = {
    "svg.hashsalt": "bitnet_cy",  # the same figures, the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PARTS = ("ternary", "head", "attention", "other")


def draw(sections: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what the sections hold; the files written."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(STYLE)
    drawn = []
    for name, plot in (("rows", _rows), ("decode", _token_time)):
        if name in sections:
            drawn.append(folder / f"{name}.svg")
            _save(plot(sections[name]), drawn[-1])
    return drawn


def _rows(section: Mapping[str, Any]) -> Any:
    """Time of a step against its rows: all sizes, and the small ones."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for kernel in dict.fromkeys(labels["kernel"] for labels in label_sets(section, "step")):
        found = sorted(
            figures(section, "step", kernel=kernel), key=lambda step: step["labels"]["rows"]
        )
        for axis, most in zip(axes, (600, 24), strict=True):
            points = [step for step in found if step["labels"]["rows"] <= most]
            sizes = [step["labels"]["rows"] for step in points]
            times = [1e3 * step["median"] for step in points]
            axis.plot(sizes, times, marker=".", markersize=3, linewidth=0.8, label=kernel)
    for axis in axes:
        axis.set(xlabel="rows", ylabel="ms a step", ylim=(0, None), xlim=(0, None))
    axes[0].legend(frameon=False)
    return figure


def _token_time(section: Mapping[str, Any]) -> Any:
    """Where the time of a decoded token goes, a bar for each variant."""
    import matplotlib.pyplot as plt

    variants = label_sets(section, "decode")
    figure, axis = plt.subplots(figsize=(8, 0.6 + 0.35 * len(variants)), layout="constrained")
    names = [f"{how(labels)}, {labels['threads']} threads" for labels in variants]
    left = [0.0] * len(variants)
    for part in PARTS:
        widths = [
            1e3 * figures(section, f"{part} time", **labels)[0]["median"] for labels in variants
        ]
        axis.barh(names, widths, left=left, label=part, height=0.6)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.invert_yaxis()
    axis.set(xlabel="ms a token")
    axis.legend(frameon=False, ncols=len(PARTS), loc="upper center", bbox_to_anchor=(0.4, 1.3))
    return figure


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)

"""Plots of the results, where matplotlib is installed (the extra `bench`); without it there are none."""

import importlib
from pathlib import Path
from typing import Any

from .report import TITLES
from .results import Case, Results
from .stats import METRICS

BARS = {
    "pull": ("GB/s of pulls", ("1 MiB by 16", "100 MiB by 16", "1 GiB by 1", "1 GiB by 16", "1 GiB by 64")),
    "push": ("GB/s of pushes", ("stream by 1", "chunked by 1", "monolithic by 1", "stream by 8", "monolithic by 8")),
    "small": ("requests/s", ("manifest by tag", "manifest by digest", "HEAD, blob is there", "HEAD, missing")),
}
COLOURS = {
    "moorage": "#0b6e8a",
    "distribution-3": "#b0b7bd",
    "distribution-2.8": "#d5d9dc",
    "zot": "#c9b79c",
    "nginx": "#6c9a5b",
    "sha256": "#e0c97f",
}


def draw(results: Results, folder: Path) -> list[str] | None:
    """One plot for each suite that has bars; their file names. None: matplotlib is not installed."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        return None
    made = []
    for suite, (title, names) in BARS.items():
        cases = [case for name in names if (case := results.case(suite, name)) is not None]
        if cases:
            bars(pyplot, title, cases, folder / f"{suite}.svg")
            made.append(f"{suite}.svg")
    return made


def bars(pyplot: Any, title: str, cases: list[Case], path: Path) -> None:
    servers = [name for name in TITLES if any(case.samples.get(name) for case in cases)]
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / len(servers)
    for number, server in enumerate(servers):
        for place, case in enumerate(cases):
            found = case.figure(server)
            if found is None:
                continue
            errors = [[found.median - found.low], [found.high - found.median]]
            axes.bar(
                place + (number - (len(servers) - 1) / 2) * width,
                found.median,
                width,
                yerr=errors,
                color=COLOURS[server],
                error_kw={"elinewidth": 0.8, "ecolor": "#444"},
                label=TITLES[server] if place == 0 else None,
            )
    axes.set_xticks(range(len(cases)), [case.name for case in cases])
    axes.set_ylabel(METRICS[cases[0].metric].unit)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(servers), fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)

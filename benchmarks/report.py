"""The Markdown tables: goals, and every case with the ratios to each peer. Pure, but for `write`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from .goals import GOALS
from .results import OURS, Case, Results, SuiteResult
from .servers import ALL
from .stats import METRICS, Summary, shown

LIMITS = {"sha256": "sha256 in memory"}
TITLES = {server.name: server.title for server in ALL} | LIMITS
SECONDARY = ("p50_ms", "p99_ms", "max_ms", "cpu_s_gb", "cpu_s_kreq", "peak_mb")
README_BEGIN = "<!-- benchmarks: begin -->"
README_END = "<!-- benchmarks: end -->"
HIGHLIGHTS = (
    ("pull", "1 GiB by 1"),
    ("pull", "1 GiB by 16"),
    ("pull", "1 kB by 16"),
    ("small", "manifest by tag"),
    ("small", "HEAD, missing"),
    ("push", "stream by 1"),
    ("push", "stream by 8"),
    ("lists", "tags of 10,000, a page of 100"),
    ("lists", "catalog of 10,000, a page of 100"),
    ("start", "first answer"),
    ("start", "memory at rest"),
    ("whole", "docker pull"),
    ("proxy", "near: cold by 1"),
    ("proxy", "near: cold by 50"),
    ("proxy", "warm by 1"),
    ("s3", "direct: blob by 1"),
    ("s3", "20 ms and 90 MB/s: blob by 1"),
    ("s3", "manifest by tag"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def figure(found: Summary | None, digits: int) -> str:
    if found is None:
        return "-"
    median, low, high = (shown(value, digits) for value in (found.median, found.low, found.high))
    return median if found.count == 1 else f"{median} ({low} to {high})"


def ratio_cell(case: Case, peer: str, metric: str) -> str:
    found = case.ratio(peer, metric)
    return f"{found.median:.2f} x" if found else "-"


def goals_table(results: Results) -> list[str]:
    verdicts = [(goal, goal.check(results)) for goal in GOALS]
    rows = [[goal.name, goal.wanted, verdict.found or "-", verdict.word] for goal, verdict in verdicts]
    return table(["", "goal", "found", ""], rows)


def servers_of(result: SuiteResult) -> list[str]:
    """Every server of the suite, ours first; those without a sample too, for a missing one has its column."""
    measured = {server for case in result.cases for server in (*case.samples, *case.notes)}
    return [name for name in TITLES if name in measured or name in result.missing]


def suite_tables(result: SuiteResult) -> list[str]:
    """The table of the main figures, and the one of what they cost."""
    servers = servers_of(result)
    peers = [name for name in servers if name != OURS]
    titles = [f"{TITLES[name]}{' (missing)' if name in result.missing else ''}" for name in servers]
    rows, costs = [], []
    for case in result.cases:
        metric = METRICS[case.metric]
        cells = [figure(case.figure(name), metric.digits) + mark(case, name) for name in servers]
        rows.append([case.name, metric.unit, *cells, *(ratio_cell(case, peer, case.metric) for peer in peers)])
        costs += cost_rows(case, servers)
    head = ["", "", *titles, *(f"ours / {TITLES[peer]}" for peer in peers)]
    lines = table(head, rows)
    if costs:
        lines += [
            "",
            "<details><summary>latency, CPU, memory</summary>",
            "",
            *table(["", "", *titles], costs),
            "",
            "</details>",
        ]
    notes = [f"- {case.name}: {TITLES[name]} {note}" for case in result.cases for name, note in case.notes.items()]
    return lines + (["", *notes] if notes else [])


def mark(case: Case, server: str) -> str:
    return " *" if server in case.notes else ""


def cost_rows(case: Case, servers: Sequence[str]) -> list[list[str]]:
    rows = []
    for key in SECONDARY:
        found = [case.figure(name, key) for name in servers]
        if key != case.metric and any(found):
            cells = [shown(one.median, METRICS[key].digits) if one else "-" for one in found]
            rows.append([case.name, METRICS[key].unit, *cells])
    return rows


def conditions(result: SuiteResult) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    versions = ", ".join(f"{TITLES[name]} {version}" for name, version in result.versions.items())
    missing = "".join(f" **Missing: {TITLES[name]}** ({why})." for name, why in result.missing.items())
    return f"{result.date}, {result.scale} run. {versions}.{missing} Machine: {facts}."


def page(results: Results, about: dict[str, str], plots: Sequence[str]) -> str:
    """The whole report. about: suite to what it measures. plots: names of files beside it."""
    lines = [
        "# Benchmarks",
        "",
        "Median (minimum to maximum) of the samples; ratios are the median of the rounds' own.",
    ]
    lines += ["How they are taken: [README](../README.md).", "", "## Goals", "", *goals_table(results)]
    for name, result in results.suites.items():
        lines += ["", f"## {name}: {about.get(name, '')}", "", conditions(result), "", *suite_tables(result)]
    for plot in plots:
        lines += ["", f"![{Path(plot).stem}]({plot})"]
    return "\n".join(lines) + "\n"


def highlights(results: Results) -> str:
    """The short table for the project's README."""
    rows, dates = [], {}
    for suite, name in HIGHLIGHTS:
        case = results.case(suite, name)
        if case is None:
            continue
        dates[suite] = results.suites[suite].date
        metric = METRICS[case.metric]
        names = (OURS, "distribution-3", "distribution-2.8", "nginx")
        cells = [shown(found.median, metric.digits) if (found := case.figure(server)) else "-" for server in names]
        rows.append([f"{suite}: {name}", metric.unit, *cells, ratio_cell(case, "distribution-3", case.metric)])
    head = ["", "", *(TITLES[name] for name in (OURS, "distribution-3", "distribution-2.8", "nginx")), "ours / v3"]
    lines = table(head, rows)
    measured = ", ".join(f"{suite} {date}" for suite, date in dates.items())
    where = "versions, machine and load of each are in [benchmarks/results](benchmarks/results/README.md)"
    return "\n".join([*lines, "", f"Measured: {measured}; {where}."] if rows else ["No results yet."])


def put_into(readme: str, text: str) -> str:
    """The README with the text between its marks. Raises ValueError when it has none."""
    before, begin, rest = readme.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not begin or not end:
        raise ValueError(f"no {README_BEGIN} and {README_END} in the README")
    return f"{before}{begin}\n{text}\n{end}{after}"

"""Print, store and plot results."""

import platform
import statistics
from typing import Any

from bench.world import Comparison, Round
from config.settings import CORES

NUMBERS = list(Round.__dataclass_fields__)


def heading(workers: int, threads: int, redis: bool) -> None:
    print(
        f"gunicorn gthread, {workers} x {threads}; limits in {'Redis' if redis else 'the process'}"
    )
    print("each: Latchkey | stock | median ratio (minimum-maximum); above 1 Latchkey is cheaper\n")
    print(
        f"{'':24}{'requests/s':>21}{'ms CPU, application':>26}{'ratio (spread)':>22}"
        f"{'PostgreSQL':>14}{'p50':>12}{'p99':>14}{'statements':>12}"
    )


def line(found: Comparison, targets: dict[str, float]) -> None:
    ratios = found.ratios("cpu")

    def both(name: str, form: str) -> str:
        return " | ".join(format(found.median(which, name), form) for which in ("ours", "theirs"))

    target = targets.get(found.name)
    median = statistics.median(ratios)
    verdict = "" if target is None else f" {'>=' if median >= target else 'NOT'} {target}"
    print(
        f"{found.name:24}{both('rate', '.0f'):>21}{both('cpu', '.2f'):>26}"
        f"{median:10.2f} ({min(ratios):.2f}-{max(ratios):.2f}){both('postgres_cpu', '.2f'):>13}"
        f"{both('p50', '.1f'):>12}{both('p99', '.0f'):>12}{both('statements', '.1f'):>12}{verdict}",
        flush=True,
    )


def results(
    comparisons: list[Comparison],
    targets: dict[str, float],
    login: dict[str, float],
    footprint: dict[str, dict[str, float]],
) -> dict[str, Any]:
    return {
        "machine": {
            "cores": CORES,
            "python": platform.python_version(),
            "system": platform.system(),
        },
        "endpoints": [
            {
                "name": c.name,
                "target": targets.get(c.name),
                "ratio_cpu": statistics.median(c.ratios("cpu")),
                "ratio_cpu_spread": [min(c.ratios("cpu")), max(c.ratios("cpu"))],
                "ratio_rate": statistics.median(c.ratios("rate")),
                **{w: {n: round(c.median(w, n), 3) for n in NUMBERS} for w in ("ours", "theirs")},
            }
            for c in comparisons
        ],
        "login": login,
        **footprint,
    }


def summary(found: dict[str, Any], seconds: float) -> None:
    login, start, memory = found["login"], found["start"], found["memory"]
    print(
        f"\nlogin: {login['logins']:.2f} a second of {login['ceiling']:.2f} that the slots can hash:"
        f" {login['ratio']:.2f}; {login['cpu']:.0f} ms of CPU each, a hash {login['hash_cpu']:.0f}\n"
        f"start to first response: {start['Latchkey']:.2f} s | {start['stock']:.2f} s\n"
        f"memory of a worker: {memory['Latchkey']:.0f} MiB | {memory['stock']:.0f} MiB,"
        f" {memory['Latchkey'] / memory['stock']:.2f}\n"
        f"\ntotal time: {seconds:.0f} s"
    )


def plot(found: dict[str, Any]) -> str:
    """Return an SVG plot of the CPU time per request."""
    rows = found["endpoints"]
    highest = max(max(row["ours"]["cpu"], row["theirs"]["cpu"]) for row in rows)
    width, left, height = 720, 190, 46 * len(rows) + 50
    scale = (width - left - 90) / highest
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="12" y="22" font-weight="600">Milliseconds of CPU for one request, application</text>',
        f'<text x="{width - 12}" y="22" text-anchor="end"><tspan fill="#2f6f4f">Latchkey</tspan>'
        ' <tspan fill="#767676">stock</tspan></text>',
    ]
    for place, row in enumerate(rows):
        y = 40 + 46 * place
        parts.append(f'<text x="{left - 10}" y="{y + 22}" text-anchor="end">{row["name"]}</text>')
        for offset, side, colour in ((0, "ours", "#2f6f4f"), (17, "theirs", "#a8a8a8")):
            cpu = row[side]["cpu"]
            length = max(1, cpu * scale)
            parts.append(
                f'<rect x="{left}" y="{y + offset}" width="{length:.1f}" height="15" fill="{colour}"/>'
                f'<text x="{left + length + 6:.1f}" y="{y + offset + 12}" fill="#333">{cpu:.2f}'
                + (f" (x{row['ratio_cpu']:.1f})" if side == "ours" else "")
                + "</text>"
            )
    return "\n".join([*parts, "</svg>"]) + "\n"

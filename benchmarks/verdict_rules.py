"""False verdicts and power of each verdict rule, simulated on known laws: a table and a figure.

    python -m benchmarks.verdict_rules --out docs/figures

Rows of the table are laws, columns are numbers of seeds; an entry is the share of false 'supported' or 'contradicted',
whichever is larger (nominal: 2.5 %; for an equivalence 5 %). Spread and correlation are those of the tables in
docs/tables: paired differences have an sd of 2 to 36 % (half of them 4 to 13 %), single arms one of 1 to 16 %.
Besides the rule in use (`reports.statistics`) stand those that it was chosen among.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from reports import statistics as st

Array = NDArray[np.float64]
Law = Callable[[np.random.Generator, int, int, float], Array]  # (rng, runs, seeds, log ratio) → runs × seeds × arms
Rule = Callable[[Array], Array]  # runs × seeds × arms → verdicts 1 (a is above b), −1 (below), 0 (undecided)

ALPHA, MARGIN = 0.05, 0.1
SEEDS = (3, 6, 12)
RUNS = 20_000
LEVELS = np.arange(5.0)


def lognormal(cv: float, correlation: float, ratio_of_spreads: float = 1.0) -> Law:
    """Two lognormal arms that share an effect of the seed; the second has another spread."""

    def law(rng: np.random.Generator, runs: int, n: int, effect: float) -> Array:
        shared, own = rng.normal(size=(runs, n, 1)), rng.normal(size=(runs, n, 2))
        noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
        return np.exp(np.array([effect, 0.0]) + np.sqrt(np.log1p(cv**2)) * np.array([1.0, ratio_of_spreads]) * noise)

    return law


def skewed(sigma: float, sd: float = 0.1) -> Law:
    """Arms whose log ratio is itself skewed: a lognormal law of this sigma, less its mean, with an sd of ``sd``."""

    def law(rng: np.random.Generator, runs: int, n: int, effect: float) -> Array:
        raw = np.exp(sigma * rng.normal(size=(runs, n))) - np.exp(sigma**2 / 2)
        d = effect + sd * raw / np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))
        return np.exp(np.stack([d, np.zeros_like(d)], axis=-1))

    return law


def signed(correlation: float) -> Law:
    """Two normal arms around 0, as cosines are: no ratios. ``effect`` is in sds of one arm."""

    def law(rng: np.random.Generator, runs: int, n: int, effect: float) -> Array:
        shared, own = rng.normal(size=(runs, n, 1)), rng.normal(size=(runs, n, 2))
        return np.array([effect, 0.0]) + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own

    return law


def levels(cv: float, correlation: float) -> Law:
    """Five lognormal levels, neighbours correlated as arms that share a prefix are; ``effect`` is lowest to highest."""
    root = np.linalg.cholesky(correlation ** np.abs(np.subtract.outer(LEVELS, LEVELS)))

    def law(rng: np.random.Generator, runs: int, n: int, effect: float) -> Array:
        noise = rng.normal(size=(runs, n, len(LEVELS))) @ root.T
        return np.exp(effect * LEVELS / LEVELS[-1] + np.sqrt(np.log1p(cv**2)) * noise)

    return law


def difference(values: Array) -> Array:
    """The rule in use."""
    tested = st.tested(values)[0]
    return _sided(tested[..., 0] - tested[..., 1], st.p_two_sided)


def student(values: Array, *, logs: bool) -> Array:
    """Student's t alone, of differences in units (rule 1) or of log ratios."""
    tested = np.log(values) if logs else values
    return _sided(tested[..., 0] - tested[..., 1], lambda d: stats.ttest_1samp(d, 0, axis=-1).pvalue)


def with_sign_flips(values: Array) -> Array:
    """Student's t of log ratios where, from 6 seeds on, the exact sign-flip test agrees."""
    d = np.log(values[..., 0] / values[..., 1])
    t = student(values, logs=True)
    return t if d.shape[-1] < 6 else t * (_sign_flip_p(d) < ALPHA)


def _sided(d: Array, p: Callable[[Array], Array]) -> Array:
    return np.sign(d.mean(axis=-1)) * (p(d) < ALPHA)


def _sign_flip_p(d: Array) -> Array:
    """`reports.statistics.sign_flip_p` of every row."""
    flips = np.array([*itertools.product((1.0, -1.0), repeat=d.shape[-1])]).T
    found = []
    for rows in np.array_split(d, max(1, len(d) // 1000)):
        size = np.abs(rows @ flips)
        found.append((size >= size[:, :1] * (1 - 1e-12)).mean(axis=1))
    return np.concatenate(found)


def equivalence(values: Array) -> Array:
    """The rule in use: 1 where equivalence is supported, −1 where it is contradicted."""
    d, bound = np.log(values[..., 0] / values[..., 1]), np.log1p(MARGIN)
    return np.where(st.p_within(d, bound) < ALPHA, 1, np.where(st.p_outside(d, bound) < ALPHA, -1, 0))


def equivalence_in_units(values: Array) -> Array:
    """Rule 1: differences against a margin of the second arm's mean, which is taken as fixed."""
    a, b = values[..., 0], values[..., 1]
    d, bound = a - b, MARGIN * b.mean(axis=-1)
    n = d.shape[-1]
    mean, error = d.mean(axis=-1), d.std(axis=-1, ddof=1) / np.sqrt(n)
    inner, outer = (stats.t.ppf(q, n - 1) * error for q in (1 - ALPHA, 1 - ALPHA / 2))
    return np.where(np.abs(mean) + inner <= bound, 1, np.where(np.abs(mean) - outer > bound, -1, 0))


def trend(values: Array) -> Array:
    """The rule in use: 1 for a trend upwards, −1 for one downwards."""
    slopes = st.slopes(st.tested(values)[0], LEVELS)
    return _by_slopes(slopes, st.p_two_sided(slopes), values)


def trend_in_units(values: Array) -> Array:
    """Rule 1: slopes of the values themselves, by Student's t."""
    slopes = st.slopes(values, LEVELS)
    return _by_slopes(slopes, stats.ttest_1samp(slopes, 0, axis=-1).pvalue, values)


def _by_slopes(slopes: Array, p: Array, values: Array) -> Array:
    side = np.sign(slopes.mean(axis=-1))
    ranks = values.argsort(axis=-1).argsort(axis=-1).sum(axis=1)  # from 0
    order = np.arange(1, len(LEVELS) + 1)
    page = np.where(side > 0, ranks @ order, ranks @ order[::-1])
    return side * ((p < ALPHA) & (_page_tail(values.shape[1])[page] < ALPHA))


@cache
def _page_tail(n: int) -> Array:
    """p of Page's test (`reports.statistics.page`) by its statistic, of ranks from 0: the sum of n random orders."""
    orders = np.array([*itertools.permutations(range(len(LEVELS)))])
    block = np.bincount(orders @ np.arange(1, len(LEVELS) + 1)) / len(orders)
    law = block
    for _ in range(n - 1):
        law = np.convolve(law, block)
    return np.cumsum(law[::-1])[::-1]


@dataclass(frozen=True)
class Case:
    """A law under which every verdict, or every one of a ``side``, is false."""

    name: str
    law: Law
    rules: dict[str, Rule]
    effect: float = 0.0
    side: int | None = None  # the false side; None: both are, and the larger share is shown


DIFFERENCE: dict[str, Rule] = {
    "t of differences (rule 1)": partial(student, logs=False),
    "t of log ratios": partial(student, logs=True),
    "and sign flips": with_sign_flips,
    "and Hall's t (in use)": difference,
}
SIGNED: dict[str, Rule] = {
    "t of differences (rule 1)": partial(student, logs=False),
    "and Hall's t (in use)": difference,
}
EQUIVALENCE: dict[str, Rule] = {"in units (rule 1)": equivalence_in_units, "of log ratios (in use)": equivalence}
TREND: dict[str, Rule] = {"in units (rule 1)": trend_in_units, "of logs (in use)": trend}
CASES = (
    Case("arms of 5 %, correlated 0.3", lognormal(0.05, 0.3), DIFFERENCE),
    Case("arms of 20 %, correlated 0.9", lognormal(0.2, 0.9), DIFFERENCE),
    Case("arms of 20 and 60 %, independent", lognormal(0.2, 0.0, 3.0), DIFFERENCE),
    Case("skewed log ratio (skewness 1)", skewed(0.31), DIFFERENCE),
    Case("skewed log ratio (skewness 1.75)", skewed(0.5), DIFFERENCE),
    Case("skewed log ratio (skewness 6)", skewed(1.0), DIFFERENCE),
    Case("cosines, correlated 0.6", signed(0.6), SIGNED),
    Case("equivalence, at the margin, arms of 3 %", lognormal(0.03, 0.3), EQUIVALENCE, float(np.log1p(MARGIN)), 1),
    Case("equivalence, at the margin, second arm of 15 %", lognormal(0.005, 0.0, 30.0), EQUIVALENCE,
         float(np.log1p(MARGIN)), 1),
    Case("trend, prefixes shared (0.8)", levels(0.1, 0.8), TREND),
    Case("trend, independent levels", levels(0.3, 0.0), TREND),
)  # fmt: skip


def false_share(case: Case, rule: Rule, n: int, runs: int = RUNS) -> float:
    """The share of false verdicts on one side, the more frequent one where both are false."""
    found = rule(case.law(np.random.default_rng([n, len(case.name)]), runs, n, case.effect))
    sides = (1, -1) if case.side is None else (case.side,)
    return max(float((found == side).mean()) for side in sides)


def seen_share(law: Law, rule: Rule, n: int, effect: float, runs: int = RUNS) -> float:
    """How often the rule says 1."""
    return float((rule(law(np.random.default_rng([n, 7]), runs, n, effect)) == 1).mean())


def family(n: int, claims: int, true: int, effect: float, *, holm: bool, runs: int) -> tuple[float, float]:
    """(how often any of the claims is called wrong, the share of true ones that are seen), claims on one study: arms
    of 10 % against one reference, so that they are correlated; ``true`` of them have the effect."""
    rng = np.random.default_rng([n, claims])
    noise = np.sqrt(np.log1p(0.1**2)) * rng.normal(size=(runs, claims + 1, n))
    there = np.arange(claims) < true
    d = noise[:, 1:] - noise[:, :1] + effect * there[:, None]
    p = st.p_two_sided(d)
    if holm:
        p = np.array([st.holm(list(row)) for row in p])
    found = np.sign(d.mean(axis=-1)) * (p < ALPHA)
    wrong = (found != 0) & ~there | (found < 0)
    return float(wrong.any(axis=1).mean()), float((found[:, there] > 0).mean()) if true else 0.0


def rerun_outside(n: int, runs: int = RUNS) -> tuple[float, float]:
    """How often one more value of the same law lies outside the interval of the mean and outside that of prediction."""
    values = np.random.default_rng(n).normal(size=(runs, n + 1))
    own, new = values[:, :-1], values[:, -1]
    half = stats.t.ppf(1 - ALPHA / 2, n - 1) * own.std(axis=1, ddof=1)
    off = np.abs(new - own.mean(axis=1))
    return float((off > half / np.sqrt(n)).mean()), float((off > half * np.sqrt(1 + 1 / n)).mean())


def not_covered(n: int, runs: int = RUNS) -> tuple[float, float]:
    """How often the 95 % interval of a difference of +80 % lies beside it, arms of 20 % that are correlated 0.3: the
    interval in % of the reference's mean, and that of the log ratio."""
    a, b = np.moveaxis(lognormal(0.2, 0.3)(np.random.default_rng(n), runs, n, np.log(1.8)), -1, 0)
    missed = []
    for d, truth in (((a - b) / b.mean(axis=1, keepdims=True), 0.8), (np.log(a / b), np.log(1.8))):
        low, high = stats.ttest_1samp(d, 0, axis=1).confidence_interval(1 - ALPHA)
        missed.append(float(((low > truth) | (high < truth)).mean()))
    return missed[0], missed[1]


def table(runs: int) -> list[str]:
    """The shares of false verdicts in %, a line a law and rule."""
    lines = [f"{'false verdicts on one side, %':<50}{'rule':<28}" + "".join(f"n = {n:<6}" for n in SEEDS)]
    for case in CASES:
        for name, rule in case.rules.items():
            shares = [100 * false_share(case, rule, n, runs) for n in SEEDS]
            lines.append(f"{case.name:<50}{name:<28}" + "".join(f"{share:<10.1f}" for share in shares))
    for what, misses, names in (
        ("a rerun outside, both sides", rerun_outside, ("interval of the mean", "prediction (in use)")),
        (
            "+80 % outside its interval, both sides",
            not_covered,
            ("in % of the mean (rule 1)", "of log ratios (in use)"),
        ),
    ):
        for i, name in enumerate(names):
            shares = [100 * misses(n, runs)[i] for n in SEEDS]
            lines.append(f"{what:<50}{name:<28}" + "".join(f"{share:<10.1f}" for share in shares))
    for holm in (False, True):
        shares = [100 * family(n, 10, 0, 0.0, holm=holm, runs=runs // 10)[0] for n in SEEDS]
        name = "Holm (in use)" if holm else "each alone (rule 1)"
        lines.append(
            f"{'any of 10 claims called wrong, none true':<50}{name:<28}" + "".join(f"{s:<10.1f}" for s in shares)
        )
    return lines


def draw(runs: int, out: Path) -> Path:
    """Above: false verdicts of the rule in use and of rule 1. Below: power."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.4), layout="constrained")
    above, below = figure.subplots(2, 4)
    kinds = (("difference", CASES[:7], 2.5), ("equivalence", CASES[7:9], 5.0), ("trend", CASES[9:], 2.5))
    for ax, (kind, cases, nominal) in zip(above, kinds, strict=False):
        _draw_sizes(ax, cases, nominal, runs)
        ax.set_title(f"{kind}: false verdicts on one side, %", fontsize=9)
    percent = np.linspace(0, 30, 16)
    _draw_power(below[0], lognormal(0.1, 0.3), DIFFERENCE, np.log1p(percent / 100), percent, runs)
    _draw_power(below[1], lognormal(0.03, 0.3), EQUIVALENCE, np.log1p(percent / 100), percent, runs)
    _draw_power(below[2], levels(0.1, 0.8), TREND, np.log1p(percent / 100), percent, runs)
    for ax, said in zip(below, ("true difference, %, arms of 10 %", "true difference, %, arms of 3 %, margin 10 %",
                                "true rise, lowest to highest level, %"), strict=False):  # fmt: skip
        ax.set_xlabel(said, fontsize=8)
        ax.set_ylabel("called supported, %", fontsize=8)
    _draw_family(above[3], below[3], runs // 10)
    below[1].legend(frameon=False, fontsize=8, title="full, solid: rule in use\nopen, dotted: rule 1", title_fontsize=8)
    for ax in (*above, *below):
        ax.tick_params(labelsize=7)
    path = out / "verdict_rules.png"
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


COLOURS = ("#7fb8da", "#2c7fb8", "#08306b")  # by number of seeds


def _draw_sizes(ax, cases: Sequence[Case], nominal: float, runs: int) -> None:  # type: ignore[no-untyped-def]
    for y, case in enumerate(reversed(cases)):
        rules = [*case.rules.values()]
        for n, colour, off in zip(SEEDS, COLOURS, (0.22, 0.0, -0.22), strict=True):
            old, new = (100 * false_share(case, rule, n, runs) for rule in (rules[0], rules[-1]))
            ax.plot([old, new], [y + off] * 2, color="0.8", linewidth=1, zorder=1)
            ax.plot(old, y + off, "o", color=colour, markerfacecolor="white", markersize=5)
            ax.plot(new, y + off, "o", color=colour, markersize=5)
    ax.axvline(nominal, color="0.5", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(cases)), [_broken(case.name) for case in reversed(cases)])
    ax.set_xlim(left=0)


def _broken(name: str) -> str:
    return name.replace("equivalence, ", "").replace("trend, ", "").replace(", ", ",\n").replace(" (", "\n(")


def _draw_power(ax, law: Law, rules: dict[str, Rule], effects: Array, x: Array, runs: int) -> None:  # type: ignore[no-untyped-def]
    first, *_, last = rules.values()
    for n, colour in zip(SEEDS, COLOURS, strict=True):
        for rule, style in ((first, ":"), (last, "-")):
            shares = [100 * seen_share(law, rule, n, effect, runs // 4) for effect in effects]
            label = f"{n} seeds" if style == "-" else None
            ax.plot(x, shares, style, color=colour, linewidth=1.5, label=label)
    ax.set_ylim(0, 102)


def _draw_family(above, below, runs: int) -> None:  # type: ignore[no-untyped-def]
    sizes = (1, 2, 5, 10, 18)
    for holm, style in ((False, ":"), (True, "-")):
        for n, colour in zip(SEEDS, COLOURS, strict=True):
            wrong = [100 * family(n, k, 0, 0.0, holm=holm, runs=runs)[0] for k in sizes]
            above.plot(sizes, wrong, style, color=colour, linewidth=1.5)
            seen = [100 * family(n, k, k, np.log1p(0.2), holm=holm, runs=runs)[1] for k in sizes]
            below.plot(sizes, seen, style, color=colour, linewidth=1.5)
    above.axhline(100 * ALPHA, color="0.5", linewidth=0.8, linestyle="--")
    above.set_title("any claim called wrong, %", fontsize=9)
    above.set_xlabel("claims, none true", fontsize=8)
    below.set_xlabel("claims, all true (20 %, arms of 10 %)", fontsize=8)
    below.set_ylabel("called supported, %", fontsize=8)
    above.set_ylim(bottom=0)
    below.set_ylim(0, 102)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for verdict_rules.png; without it, only the table is printed")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated studies an entry (default {RUNS})")
    options = parser.parse_args()
    print("\n".join(table(options.runs)))
    if options.out:
        print(f"wrote {draw(options.runs, options.out)}")


if __name__ == "__main__":
    main()

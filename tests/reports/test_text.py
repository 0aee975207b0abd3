from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from reports.overview import Section, _section
from reports.stored import notes_on
from reports.text import escaped, findings, markdown, markdown_table, number, plain, show, span
from reports.verdicts import Verdict
from studies.loader import load_source, resolve

from .synthetic import measured, noisy, study
from .synthetic import v_then_u as case
from .test_claims import judged


def test_numbers() -> None:
    assert (number(-1.2345), number(None), number(12.0, " %"), span((-1.0, 2.5))) == (
        "−1.23",
        "–",
        "12 %",
        "[−1, 2.5]",
    )


def test_plain_says_everything() -> None:
    verdicts = list(judged(*case(range(6))).values())
    said = plain(verdicts, ["x: seeds were added"], ["the EMA weights"])
    for words in (
        "fixed_u_budget: SUPPORTED at scale cpu", "Declared test: value at the end", "Fig. 2 top",
        "v20 − v0 = −",
        "Smallest resolvable difference", "Page's trend test", "Holm-adjusted", "secondary",
        "FLAG  x: seeds were", "note: the EMA weights",
        "At the paper's scale: not run.", "cannot be tested", "of per-seed slopes", "6 of 6",
    ):  # fmt: skip
        assert words in said, words


def of_model_sizes(spread: float) -> dict[str, Verdict]:
    """M/2 with DTD 20 % below the same with Min-SNR, L/2 with DTD 2 % above MeanFlow with XL/2."""
    sizes = {"dtd_u_weight_m": 8.0, "dtd_u_weight_l": 10.2}
    resolved = study("cpu", range(6), "model_sizes")
    made = measured(resolved, lambda arm, p: sizes.get(arm.name, 10.0) * noisy(arm, p, spread))
    return judged(resolved, *made)


def test_the_papers_effect_stands_beside_what_the_seeds_can_show() -> None:
    few, many = of_model_sizes(0.1), of_model_sizes(1e-4)
    said = {name: "\n".join(findings(of[name])) for name in few for of in (few, many)}
    assert "The paper's own numbers: −3.9 %." in said["dtd_over_min_snr_m"]
    noisy_one = few["dtd_over_min_snr_m"]
    assert "The paper's own numbers: −3.9 %, not resolvable with 6 seeds." in findings(noisy_one)
    assert noisy_one.primary.resolvable_percent > 3.9  # type: ignore[operator]
    assert noisy_one.to_json()["details"]["paper"] == pytest.approx(100 * (4.43 - 4.61) / 4.61)
    assert "paper" not in next(iter(judged(*case(range(3))).values())).to_json()["details"]


def test_a_claim_across_two_panels() -> None:
    one = of_model_sizes(1e-3)["l_matches_xl"]
    assert one.primary.verdict == "supported" and one.primary.n == 6
    assert one.primary.effect_percent == pytest.approx(2.0, abs=0.3)
    assert one.primary.compared == ("dtd_u_weight_l", "xl/meanflow_xl")
    assert "The paper's own numbers: 1.17 %." in findings(one), "a margin is not a difference from 0 to be resolved"


def test_terminal_and_pipe() -> None:
    verdicts = list(judged(*case(range(3))).values())
    pipe, terminal = io.StringIO(), io.StringIO()
    show(verdicts, [], Console(file=pipe, width=80))
    assert pipe.getvalue() == plain(verdicts, []) + "\n"  # neither wrapped nor coloured
    show(verdicts, ["f"], Console(file=terminal, force_terminal=True, width=120))
    assert "╭" in terminal.getvalue() and "FLAG" in terminal.getvalue()


def test_the_end_of_a_line_does_not_end_a_cell() -> None:
    assert markdown_table([["a", "b"], ["of two\nlines", "*"]])[-1] == "| of two lines | \\* |"


def test_markdown_tables_are_whole() -> None:
    verdicts = list(judged(*case(range(3))).values())
    lines = markdown(verdicts, ["a | b"], ["c | d"]).splitlines()
    assert "- **Note:** c \\| d" in lines
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == sum(2 + len(v.outcomes) for v in verdicts)
    assert len({line.count("|") for line in rows}) == 1
    assert "- **Flag:** a \\| b" in lines


def test_the_index_tells_of_weights_that_are_still_the_initial_ones() -> None:
    slow = resolve(load_source("obs_v_then_u"), "cpu", ["dynamics.ema_decay=0.9999"], [0])
    (note,) = notes_on(slow)
    assert "in good part the initial weights" in note
    run: Any = SimpleNamespace(run="20261120T120501402708-1a2b3c", config_hash="0" * 20)
    said = [list(_section(Section(one, run, None), Path())) for one in (slow, study("cpu", range(1)))]
    assert [f"**Note:** {escaped(note)}." in paragraphs for paragraphs in said] == [True, False]

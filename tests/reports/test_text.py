from __future__ import annotations

import io

from rich.console import Console

from reports.text import markdown, number, plain, show, span

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
    said = plain(verdicts, ["x: seeds were added"])
    for words in (
        "fixed_u_budget: SUPPORTED at scale cpu", "Declared test: value at the end", "Fig. 2 top",
        "v20 − v0 = −",
        "Smallest resolvable difference", "Page's trend test", "Holm-adjusted", "secondary",
        "FLAG  x: seeds were",
        "At the paper's scale: not run.", "cannot be tested", "of per-seed slopes", "6 of 6",
    ):  # fmt: skip
        assert words in said, words


def test_terminal_and_pipe() -> None:
    verdicts = list(judged(*case(range(3))).values())
    pipe, terminal = io.StringIO(), io.StringIO()
    show(verdicts, [], Console(file=pipe, width=80))
    assert pipe.getvalue() == plain(verdicts, []) + "\n"  # neither wrapped nor coloured
    show(verdicts, ["f"], Console(file=terminal, force_terminal=True, width=120))
    assert "╭" in terminal.getvalue() and "FLAG" in terminal.getvalue()


def test_markdown_tables_are_whole() -> None:
    verdicts = list(judged(*case(range(3))).values())
    lines = markdown(verdicts, ["a | b"]).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == sum(2 + len(v.outcomes) for v in verdicts)
    assert len({line.count("|") for line in rows}) == 1
    assert "- **Flag:** a \\| b" in lines

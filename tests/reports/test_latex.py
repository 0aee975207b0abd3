"""A table as LaTeX: what is escaped, and that a real LaTeX compiles it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from reports.latex import ESCAPES, HEAD, escaped, latex
from reports.tablefill import fill
from reports.tablewords import Document

from .synthetic import measured
from .synthetic import study as builtin
from .tabled import told, worded

SPECIAL = r"\{}%&#$_~^<>|[*"
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")


@given(some.text(alphabet=SPECIAL + "ab 1±κΔ", max_size=12))
def test_latex_escapes_can_be_undone(text: str) -> None:
    back = {made: chr(sign) for sign, made in ESCAPES.items()}
    longest_first = sorted(back, key=len, reverse=True)
    pattern = "|".join(re.escape(made) for made in longest_first) + "|."
    assert "".join(back.get(found, found) for found in re.findall(pattern, escaped(text))) == text


@given(some.text(max_size=20))
def test_only_what_latex_knows_is_left(text: str) -> None:
    assert all(sign.isprintable() and ord(sign) < 0x180 for sign in escaped(text))


def test_no_special_character_reaches_latex_bare() -> None:
    assert escaped("50 % of a_b & #1") == r"50 \% of a\_b \& \#1"
    assert escaped("κ = 0.5, t ≤ 0.8 ± 1") == r"$\kappa$ = 0.5, t $\leq$ 0.8 $\pm$ 1"
    assert escaped("\\") == r"\textbackslash{}"
    assert escaped("ω′ of Fréchet, 𝓛, 漢") == r"$\omega$$'$ of Fréchet, L, ?"
    for sign in SPECIAL:
        assert escaped(sign) != sign


def test_latex_is_a_whole_document_with_booktabs() -> None:
    text = latex(told())
    assert text.startswith("\\documentclass") and text.endswith("\\end{document}\n")
    assert text.count("\\begin{") == text.count("\\end{") == 3
    for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\usepackage{booktabs}", "\\cmidrule{1-6}"):
        assert rule in text
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {5}, "as many cells in every row"
    assert text.count("\\begin{tabular}{lrrrrr}") == 1
    assert r"\textbf{" in body and r"\underline{" in body and r"$\pm$" in body
    assert r"\emph{on\_the left \& 50 \%}" in body


@needs_latex
@pytest.mark.parametrize("name", ["made", "components", "cfg_configs"])
def test_latex_compiles_alone(name: str, tmp_path: Path) -> None:
    assert_compiles(latex(told() if name == "made" else _document_of(name)), tmp_path)


@needs_latex
def test_latex_sets_every_letter(tmp_path: Path) -> None:
    letters = {chr(code) for code in (*range(0x250), *ESCAPES)}
    rows = " \\\\\n".join(map(escaped, sorted(letters)))
    assert_compiles(HEAD + "\\begin{tabular}{l}\n" + rows + "\n\\end{tabular}\n\\end{document}\n", tmp_path)


def assert_compiles(text: str, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0 and (tmp_path / "table.pdf").stat().st_size > 1000, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "table.log").read_text(errors="replace")


def _document_of(name: str) -> Document:
    resolved = builtin("truth", [0, 1], name)
    frame, protocols = measured(resolved, lambda arm, p: 1.0 + arm.seed + len(arm.name))
    return worded(fill(resolved, frame, protocols, {}))

"""A table as a LaTeX document with booktabs that compiles alone; its ``table`` environment can stand in another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from reports.tablewords import MARKS, Block, Document, Words

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "[": "{[}", "*": "{*}",  # at the start of a row they would belong to the end of the row before
    "<": "$<$", ">": "$>$", "|": "$|$",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "∈": r"$\in$", "→": r"$\to$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "√": r"$\surd$", "∞": r"$\infty$",
    "‖": r"$\Vert$", "′": "$'$", "²": "$^2$", "₂": "$_2$", "–": "--", "—": "---", "…": r"\dots{}",
    "“": "``", "”": "''", "‘": "`", "’": "'", "«": r"$\ll$", "»": r"$\gg$", "\u00a0": "~", "\u202f": r"\,",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda",
    "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
ESCAPES = str.maketrans(SPECIAL | {letter: f"$\\{name}$" for letter, name in GREEK.items()})
HEAD = r"""\documentclass[a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{booktabs}
\begin{document}
"""
LATIN = 0x17F  # the last letter that LaTeX knows without more packages, but for those which its default fonts lack
LACKING = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
MARKED = {"best": r"\textbf{%s}", "second": r"\underline{%s}"}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is; a letter that it may lack becomes its nearest in ASCII, or a question mark."""
    return "".join(ESCAPES.get(ord(sign)) or _letter(sign) for sign in unicodedata.normalize("NFC", text))


def _letter(sign: str) -> str:
    if sign.isprintable() and ord(sign) <= LATIN and sign not in LACKING:
        return sign
    near = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return near if near.isalnum() else "?"


def latex(document: Document) -> str:
    """The values of a table as a LaTeX document; assumptions and orders stand in its Markdown."""
    said = [document.heading, document.warning, f"Bold: {MARKS.format('underlined')}", document.caption]
    said += (f"Missing: {phrase}." for phrase in document.missing)
    if document.assumptions:
        said.append(f"Its {len(document.assumptions)} assumptions are listed in the study's file and in Markdown.")
    caption = escaped(" ".join(filter(None, said)))
    lines = [r"\begin{table}", r"\centering", r"\footnotesize", rf"\caption{{{caption}}}", *_tabular(document.values)]
    lines += [r"\par\bigskip", *_tabular((document.others,), text=2)] if document.others else []
    lines.append(r"\end{table}")
    return HEAD + "\n".join(lines) + "\n\\end{document}\n"


def _tabular(blocks: tuple[Block, ...], text: int = 1) -> Iterator[str]:
    """Parts under one head, of whose columns the first ones are ``text`` and the others numbers."""
    columns = "l" * text + "r" * (len(blocks[0].head) - text)
    yield from (rf"\begin{{tabular}}{{{columns}}}", r"\toprule")
    yield from _body(blocks)
    yield from (r"\bottomrule", r"\end{tabular}")


def _body(blocks: tuple[Block, ...]) -> Iterator[str]:
    """The rows of all parts under one head, with rules between."""
    head = blocks[0].head
    yield _line([escaped(name) for name in head])
    for block in blocks:
        yield r"\midrule"
        yield rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{escaped(block.title)}}}}} \\"
        for i, row in enumerate(block.rows):
            if i == block.controls:
                yield rf"\cmidrule{{1-{len(head)}}}"
            yield _line([_cell(words) for words in row])


def _cell(words: Words) -> str:
    text = escaped(words.text)
    return MARKED[words.mark] % text if words.mark else text


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"

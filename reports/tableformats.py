"""A table's document as Markdown, and for the terminal (rich where it is one, else plain)."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.tablewords import MARKS, Block, Document, Words
from reports.text import aligned, escaped

IMPLIED = "What the verdicts imply"
STYLES = {"best": "bold", "second": "underline"}


def markdown(document: Document) -> str:
    """Values and orders as Markdown of GitHub's kind, with the study's assumptions."""
    parts = [f"### {escaped(document.heading)}", f"**{document.warning}**" if document.warning else ""]
    parts += [_markdown_block(block) for block in document.values]
    parts += [f"Bold: {MARKS.format('underlined')} {escaped(document.caption)}", _bullets("Missing", document.missing)]
    parts += [_markdown_block(document.others)] if document.others else []
    if document.orders:
        parts += ["#### Orders", *(_markdown_block(block) for block in document.orders)]
        parts += [escaped(note) for note in document.order_notes]
    parts += [_bullets(IMPLIED, document.implied), _bullets("Assumptions", document.assumptions)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _markdown_block(block: Block) -> str:
    rows = [[_markdown_cell(words) for words in row] for row in block.rows]
    if block.controls < len(rows):
        rows.insert(block.controls, ["*our controls*", *[""] * (len(block.head) - 1)])
    lines = [[escaped(name) for name in block.head], ["---"] * len(block.head), *rows]
    return f"**{escaped(block.title)}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown_cell(words: Words) -> str:
    text = escaped(words.text)
    return {"best": f"**{text}**", "second": f"<ins>{text}</ins>"}.get(words.mark or "", text)


def _bullets(title: str, lines: tuple[str, ...]) -> str:
    return f"{title}:\n\n" + "\n".join(f"- {escaped(' '.join(line.split()))}" for line in lines) if lines else ""


def _listed(title: str, lines: tuple[str, ...]) -> str:
    """A list as plain text; nothing for no lines."""
    return "\n".join([f"{title}:", *(f"- {' '.join(line.split())}" for line in lines)]) if lines else ""


def show(document: Document, console: Console) -> None:
    """Print values and the orders at the end of training: tables in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        console.print(plain(document), markup=False, highlight=False, soft_wrap=True)
        return
    console.print(Text(document.heading, style="bold"))
    if document.warning:
        console.print(Text(document.warning, style="bold red"))
    for block in document.values:
        console.print(_rich(block))
    console.print(Text(f"Bold: {MARKS.format('underlined')} {document.caption}", style="dim"))
    for block in (*([document.others] if document.others else []), *document.last_orders):
        console.print(_rich(block))
    for note in order_notes(document):
        console.print(Text(note, style="dim"))
    if document.implied:
        console.print(Text(_listed(IMPLIED, document.implied)))


def order_notes(document: Document) -> list[str]:
    """The notes below the orders that a terminal shows, and where the others are."""
    return [note for note in (document.elsewhere, *(document.order_notes if document.last_orders else ())) if note]


def _rich(block: Block) -> Table:
    table = Table(*block.head, title=Text(block.title), title_justify="left", box=HORIZONTALS)
    for i, row in enumerate(block.rows):
        if i == block.controls:
            table.add_section()
        style = "dim" if i >= block.controls else None
        table.add_row(*(Text(words.text, style=STYLES.get(words.mark or "", "")) for words in row), style=style)
    return table


def plain(document: Document) -> str:
    """Values and the orders at the end of training as plain text."""
    parts = [document.heading, document.warning, *(_plain_block(block) for block in document.values)]
    parts.append(f"*…*: {MARKS.format('_…_')} {document.caption}")
    parts += [_plain_block(document.others)] if document.others else []
    parts += [*map(_plain_block, document.last_orders), *order_notes(document), _listed(IMPLIED, document.implied)]
    return "\n\n".join(filter(None, parts))


def _plain_block(block: Block) -> str:
    return "\n  ".join([block.title, *_ruled(block)])


def _ruled(block: Block) -> Iterator[str]:
    """The lines of a block, with a rule below its head and above its controls."""
    lines = aligned([block.head, *([_plain_cell(words) for words in row] for row in block.rows)])
    rule = "-" * max(map(len, lines))
    for i, line in enumerate(lines):
        if i == 1 or (i > 1 and i - 1 == block.controls):
            yield rule
        yield line


def _plain_cell(words: Words) -> str:
    return {"best": f"*{words.text}*", "second": f"_{words.text}_"}.get(words.mark or "", words.text)

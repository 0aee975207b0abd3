"""Write and execute docs/notebook.ipynb: python scripts/make_notebook.py (some 20 s; it trains docs/examples/own).

The notebook is kept with its outputs. Its cells stand here, so that they can be read and changed as text.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"

CELLS: list[tuple[str, str]] = [
    (
        "markdown",
        """# A study in a notebook

The commands as functions (`studies.notebook`): what `study plan`, `results`, `compare`, `report`, `claims` and `sample`
do, with pandas frames, matplotlib axes and torch modules in place of text. Here on [examples/own](examples/own), a
study of two rings all of whose parts are the user's own; it trains in seconds, into a folder `home`. Start it in
`docs/`.""",
    ),
    (
        "code",
        """from studies.notebook import open_home

STUDY = "examples/own/mine.yaml"
home = open_home("home")
plan = home.plan(STUDY)
print(f"{plan.epochs[0]:g} of {plan.epochs[1]:g} epochs a seed suffice, since prefixes are shared")
print(f"{plan.remaining.steps} of {plan.cost.steps} steps are left to train")""",
    ),
    ("markdown", "Training is a command: it can be stopped and continued, and ends bit for bit the same."),
    ("code", "!study run {STUDY} --home home | tail -n 1"),
    ("markdown", """Every measured point is a row of a tidy frame; the arms' attributes are columns."""),
    (
        "code",
        """frame = home.frame(STUDY, metric="RadiusError")
ends = frame[(frame["stage"] == "u_finetune") & (frame["stage_epoch"] == 4)]
ends.pivot(index="seed", columns="attribute.power", values="value").round(4)""",
    ),
    ("markdown", """Two arms, paired by seed, with Student's interval; and in what their configurations differ."""),
    (
        "code",
        """arms = "mine/all/power2", "mine/all/power0.5"
print(*(one.in_words() for one in home.differences(*arms)), sep="\\n")
home.compare(*arms).table.round(4)""",
    ),
    (
        "code",
        """import matplotlib.pyplot as plt

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
home.figure(STUDY, ax=left)
home.compare(*arms).plot(right, "RadiusError")""",
    ),
    (
        "markdown",
        """The claims, their verdicts, and what they rest on. Three seeds of a made-up study prove nothing.""",
    ),
    ("code", """home.claims(STUDY)[["claim", "verdict", "effect", "n", "reason"]]"""),
    ("markdown", """Weights of any arm that are kept, and samples from them. Up to here no torch was loaded."""),
    (
        "code",
        """import sys

print("torch loaded:", "torch" in sys.modules)
first, last = (home.checkpoint("mine/all/power1", seed=0, epoch=epoch) for epoch in (0, None))
print(f"epochs {first.epoch:g} and {last.epoch:g}:", type(last.load()).__name__)

fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True)
for ax, (checkpoint, nfe) in zip(axes, ((first, 1), (last, 1), (last, 8))):
    x = home.sample(checkpoint, nfe=nfe, n=500)
    ax.scatter(*x.T, s=3)
    ax.set(title=f"epoch {checkpoint.epoch:g}, {nfe} NFE", aspect="equal")""",
    ),
]


def notebook() -> nbformat.NotebookNode:
    """The notebook, not executed."""
    made = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [made[kind](text, id=f"cell-{i}") for i, (kind, text) in enumerate(CELLS)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def execute(document: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run every cell in a folder that holds ``examples``. Raises: nbclient's CellExecutionError."""
    client = NotebookClient(document, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # where `study` is
    executed: nbformat.NotebookNode = client.execute(env=os.environ | {"PATH": path})
    for cell in executed.cells:
        cell.metadata.pop("execution", None)  # times
    return executed


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(DOCS / "examples")
        document = execute(notebook(), Path(folder))
    document.metadata.pop("language_info", None)
    nbformat.write(document, NOTEBOOK)


if __name__ == "__main__":
    main()

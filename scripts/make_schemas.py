"""Write docs/schemas: the JSON schemas of the worker's protocol, made of its models (sweeps/program/protocol.py)."""

from __future__ import annotations

import json
from pathlib import Path

from sweeps.program.protocol import FILES

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def schemas() -> dict[str, str]:
    """The text of every schema, by file name."""
    texts = {}
    for name, model in FILES.items():
        read = "validation" if name == "metrics-line" else "serialization"  # what we read, and what we write
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(mode=read)}
        texts[f"{name}.schema.json"] = json.dumps(schema, indent=1) + "\n"
    return texts


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in schemas().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
        print(f"wrote {FOLDER / file}")

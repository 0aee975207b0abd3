"""Files that appear together: none is ever half written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def published(out_dir: Path, stem: str) -> Iterator[Path]:
    """A folder whose files move into ``out_dir`` once all of them are written."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=out_dir) as name:
        folder = Path(name)
        yield folder
        for path in sorted(folder.iterdir()):
            path.replace(out_dir / path.name)

"""Finding the garbage of a home, and deleting it: safe against a kill at any moment and against commands that run.

A folder is renamed aside before it is removed, so that half of it is never seen. What is let go is noted before that,
so that a plan never asks for it without need. Both leases of a trajectory are held meanwhile. A run is recorded before
it looks at what is there; so either it sees that a folder is gone, or it is seen here in time to put the folder back.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from results.files import folders
from results.layout import Home
from results.recorded import run_names
from studies.errors import StudyError
from sweeps import garbage, leftovers
from sweeps.attempt import recorded_evaluations
from sweeps.garbage import Choice, Weights
from sweeps.lease import holder, holding
from sweeps.plan import Inventory, take_inventory
from sweeps.wanted import recorded_wants

Kind = garbage.Kind | leftovers.Kind

WHAT: dict[Kind, str] = {
    "staged": "staged folders",
    "rolling": "rolling checkpoints",
    "unwanted": "unwanted weights",
    "snapshot": "snapshots",
    "end": "full states",
    "lease": "leases",
    "leftover": "leftovers",
    "run": "unpublished runs",
}
WHY: dict[Kind, str] = {
    "staged": "attempts that are over had begun to write or to remove them",
    "rolling": "killed attempts left them for resuming; no recorded run wants these steps",
    "unwanted": "no recorded run wants them any more",
    "snapshot": "all that is asked of them is measured; a new metric would need new training",
    "end": "nothing left to do starts from them; a new metric or branch would need new training",
    "lease": "stale leases; who held them is gone",
    "leftover": "processes that died had begun to write or to remove them",
    "run": "runs that were never published; their commands died",
}


@dataclass(frozen=True)
class Item:
    """A file or folder that may be deleted."""

    kind: Kind
    path: Path
    bytes: int
    trajectory: str = ""
    weights: Weights | None = None


@dataclass
class Findings:
    """What may be deleted, and what that was derived from. ``busy`` are trajectories that somebody works on; nothing of
    theirs is listed."""

    items: list[Item]
    busy: list[str]
    have: Inventory
    runs: list[str]


@dataclass
class Deleted:
    """What was deleted; the trajectories that were left since somebody works on them, or since they have changed; and
    whether it ended early because a run was recorded meanwhile."""

    items: list[Item] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stopped: bool = False


def find(home: Home, choice: Choice, within: set[str] | None = None) -> Findings:
    """Look for garbage; ``within`` some trajectories, or everywhere. Raises: StoreError where a run cannot be read."""
    wants = recorded_wants(home, choice.superseded)
    keys = [folder.name for folder in folders(home.trajectories)]
    measured = {key for name in keys if name in wants.tree.nodes for key in recorded_evaluations(home.trajectory(name))}
    have = take_inventory(home, {*keys, *wants.tree.nodes}, measured)
    looked_at = [key for key in keys if within is None or key in within]
    busy = [key for key in looked_at if any(map(holder, home.trajectory(key).leases))]
    items = [] if within is not None else [_item(*one) for one in leftovers.of_home(home)]
    for key in looked_at:
        if key not in busy:
            items.extend(_item(*one, key) for one in leftovers.of_trajectory(home.trajectory(key)))
    for one in garbage.garbage(wants, have, choice):
        if one.trajectory in looked_at and one.trajectory not in busy:
            items.append(_item(one.kind, _place(home, one), one.trajectory, one))
    return Findings(sorted(items, key=lambda item: (item.trajectory, item.path)), busy, have, sorted(wants.runs))


def _place(home: Home, one: Weights) -> Path:
    folder = home.trajectory(one.trajectory)
    return folder.checkpoint(one.step) if one.part == "checkpoints" else folder.snapshot(one.step)


def _item(kind: Kind, path: Path, trajectory: str = "", weights: Weights | None = None) -> Item:
    return Item(kind, path, sum(map(_bytes, (path, *path.rglob("*")))), trajectory, weights)


def _bytes(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # somebody has begun to work here this moment
        found = path.lstat()
        return 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return 0


def delete(home: Home, found: Findings) -> Deleted:
    """Delete what was found, but for what has got in use since. Raises: StudyError if another gc is at work."""
    done = Deleted()
    with holding(home.gc_lease) as alone:
        if not alone:
            raise StudyError(f"another `study gc` is at work in {home.root}; wait for it to end")
        for key, group in groupby(found.items, key=lambda item: item.trajectory):
            items = list(group)
            with _alone_with(home, key) as mine:
                if not mine or (key and _lost_since(home, key, found.have)):
                    done.left.append(key)
                elif _delete_together(home, items, found.runs):
                    done.items.extend(items)
                else:
                    done.stopped = True
                    break
    return done


def _alone_with(home: Home, key: str) -> contextlib.AbstractContextManager[bool]:
    return holding(*(home.trajectory(key).leases if key else ()))


def _lost_since(home: Home, key: str, had: Inventory) -> bool:
    """Whether a trajectory has lost weights since it was looked at, so that others may be needed now."""
    has = take_inventory(home, [key], ())
    return not (had.full[key] <= has.full[key] and had.snapshots[key] <= has.snapshots[key])


def _delete_together(home: Home, items: Sequence[Item], runs: list[str]) -> bool:
    """Delete what was found in one trajectory, or beside all. Returns: False, and its weights are as they were, if a
    run has been recorded since."""
    for item in items:
        if item.weights is None and item.kind != "lease":  # a stale lease has been taken over, and will be released
            _remove(item.path)
    aside = dict(_set_aside(home, items))
    if aside and run_names(home) != runs:
        for path, hidden in aside.items():
            with contextlib.suppress(OSError):  # whoever has made it anew meanwhile is right as well
                hidden.rename(path)
        return False
    for hidden in aside.values():
        _remove(hidden)
    return True


def _set_aside(home: Home, items: Sequence[Item]) -> Iterator[tuple[Path, Path]]:
    """Note what is let go, then rename it, so that it is either there whole or not there."""
    for item in items:
        if item.weights is None:
            continue
        if item.weights.part == "checkpoints":
            note = home.trajectory(item.trajectory).release(item.weights.step)
            note.parent.mkdir(exist_ok=True)
            note.touch()
        hidden = item.path.with_name(f"{leftovers.DISCARDED}{item.path.name}-{uuid.uuid4().hex}")
        item.path.rename(hidden)
        yield item.path, hidden


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

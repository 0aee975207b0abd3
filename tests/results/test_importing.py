"""Importing: what is there stays, what comes gets its place, and it may be interrupted and repeated."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import importing
from results.bundle import BundleError
from results.dump import canonical_dump
from results.importing import Imported, take
from results.ingest import ingest
from results.layout import Home, TrajectoryDir
from sweeps import leftovers
from tests.results.conftest import HomeBuilder, sqlite_store
from tests.results.test_bundle import alone, bundle, files, origin, written

__all__ = ["bundle", "origin"]


def dump(home: Home) -> list[str]:
    """What a fresh store makes of a home."""
    with tempfile.TemporaryDirectory() as folder:
        engine = sqlite_store(Path(folder) / "store.sqlite")
        ingest(engine, home)
        lines = list(canonical_dump(engine))
        engine.dispose()
        return lines


def numbers(home: Home, trajectory: str) -> dict[int, dict[str, Any]]:
    """The last line of metrics of each attempt, by number; the number in its segment.json is the folder's."""
    found = {}
    for folder in sorted(home.trajectory(trajectory).attempts.iterdir()):
        assert json.loads((folder / "segment.json").read_text())["attempt"] == int(folder.name)
        found[int(folder.name)] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return found


def test_a_new_home_is_the_old_one(bundle: Path, origin: Home, tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    manifest, done = take(bundle, home, alone)
    assert done == Imported(runs=3, trajectories=2, attempts=4, verdicts=2)
    assert {entry.path for entry in manifest.files} == files(home.root).keys()
    assert dump(home) == dump(origin)
    before = files(home.root)
    assert take(bundle, home, alone)[1] == Imported(there=3 + 2 + 4)
    assert files(home.root) == before


def test_its_own_home_takes_nothing_from_it(bundle: Path, origin: Home) -> None:
    before = files(origin.root)
    assert take(bundle, origin, alone)[1] == Imported(there=9)
    assert files(origin.root).keys() - before.keys() == {"trajectories/t0/released/000000020"}
    assert before.items() <= files(origin.root).items()


def test_differing_attempts_get_the_next_numbers_and_ours_still_count(bundle: Path, tmp_path: Path) -> None:
    """Ours were measured on another machine, say."""
    mine = HomeBuilder(tmp_path / "mine")
    mine.run("20261119T120501-dddddd")
    mine.trajectory("t0")
    mine.attempt("t0", 1, [mine.evaluation_line("t0", 20, value=1.5)])
    mine.verdict(claim="mine")
    before = files(mine.home.root)
    done = take(bundle, mine.home, alone)[1]
    assert done.renumbered == [("t0", 1, 2), ("t0", 2, 3), ("t0", 3, 4)]
    assert before.items() - {("verdicts.jsonl", before["verdicts.jsonl"])} <= files(mine.home.root).items()
    assert [row["step"] for row in numbers(mine.home, "t0").values()] == [20, 10, 15, 20]
    lines = [json.loads(line) for line in dump(mine.home)]
    values = {line[1]: line[-1] for line in lines if line[0] == "evaluation"}
    assert values["e-t0-20"] == 1.5, "what was here counts"
    assert values["e-t0-0"] == 40
    assert [json.loads(v)["claim"] for v in mine.home.verdicts.read_text().splitlines()] == ["mine", "c1", "c2"]
    again = files(mine.home.root)
    assert take(bundle, mine.home, alone)[1].renumbered == []
    assert files(mine.home.root) == again


def test_what_was_done_here_since_keeps_its_number(bundle: Path, builder: HomeBuilder, tmp_path: Path) -> None:
    """Two homes part and meet again, in either direction."""
    home = Home(tmp_path / "new")
    take(bundle, home, alone)
    theirs = HomeBuilder(home.root)
    theirs.attempt("t1", 2, [theirs.evaluation_line("t1", 10)])
    builder.attempt("t1", 2, [builder.evaluation_line("t1", 15)])
    builder.attempt("t1", 3, [builder.evaluation_line("t1", 20)])
    done = take(written(builder.home, tmp_path / "later.tar.gz"), home, alone)[1]
    assert done.attempts == 2
    assert [row["step"] for row in numbers(home, "t1").values()] == [0, 10, 15, 20]
    done = take(written(home, tmp_path / "back.tar.gz"), builder.home, alone)[1]
    assert (done.attempts, done.renumbered) == (1, [("t1", 2, 4)])
    assert [row["step"] for row in numbers(builder.home, "t1").values()] == [0, 15, 20, 10]
    assert dump(builder.home) == dump(home)


def test_what_an_earlier_bundle_left_out_is_added(origin: Home, bundle: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    take(bundle, home, alone)

    def snapshot(folder: TrajectoryDir, step: int) -> dict[str, Path | bytes]:
        return {"ema.safetensors": b"w", "manifest.json": b"{}"}

    more = written(origin, tmp_path / "more.tar.gz", importing_everything(snapshot))
    done = take(more, home, alone)[1]
    assert (done.attempts, done.snapshots) == (0, 4)
    folder = home.trajectory("t0")
    assert (folder.attempt(1) / "log.txt").read_text() == "log.txt"
    assert (folder.attempt(2) / "images-e1.npy").is_file()
    assert (folder.snapshot(20) / "ema.safetensors").read_bytes() == b"w"


def importing_everything(snapshot: Callable[[TrajectoryDir, int], dict[str, Path | bytes]]) -> Any:
    from results.bundling import Taken

    return Taken(logs=True, artefacts=True, snapshot=snapshot)


def test_a_trajectory_that_is_worked_on_is_left_out_and_comes_later(bundle: Path, origin: Home, tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    done = take(bundle, home, lambda folder: nullcontext(folder.root.name != "t0"))[1]
    assert (done.busy, done.trajectories, done.runs) == (["t0"], 1, 3)
    assert not home.trajectory("t0").attempts.exists()
    assert take(bundle, home, alone)[1].trajectories == 1
    assert dump(home) == dump(origin)


@pytest.mark.parametrize(
    ("path", "old", "new", "says"),
    [("runs/20261120T120501-aaaaaa/arms.jsonl", "left", "rght", "run 20261120T120501-aaaaaa is in"),
     ("trajectories/t1/trajectory.json", '"step": 20', '"step": 10', "trajectory t1 starts elsewhere")],
)  # fmt: skip
def test_what_contradicts_the_home_is_refused(
    path: str, old: str, new: str, says: str, bundle: Path, origin: Home
) -> None:
    (origin.root / path).write_text((origin.root / path).read_text().replace(old, new))
    before = files(origin.root)
    with pytest.raises(BundleError, match=says):
        take(bundle, origin, alone)
    assert files(origin.root) == before


def test_a_cut_off_verdict_here_is_replaced_by_whole_lines(bundle: Path, tmp_path: Path) -> None:
    mine = HomeBuilder(tmp_path / "mine")
    mine.verdict(claim="mine")
    with mine.home.verdicts.open("a") as file:
        file.write('{"study": "cut o')
    take(bundle, mine.home, alone)
    claims = [json.loads(line)["claim"] for line in mine.home.verdicts.read_text().splitlines()]
    assert claims == ["mine", "c1", "c2"]


class Killed(BaseException):
    """As if the process had ended here: nothing catches it."""


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the operation of this number that puts something into its place is not done, nor is anything after it."""
    left = [number]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **kwargs)

        return operation

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", counted(Path.rename))
        patched.setattr(os, "link", counted(os.link))
        patched.setattr(importing, "append_lines", counted(importing.append_lines))
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        yield


def test_killed_at_any_moment_the_home_works_and_importing_again_completes_it(
    bundle: Path, origin: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = (tmp_path / f"trial{i}.sqlite" for i in itertools.count())  # copies of a store made once: faster
    monkeypatch.setattr(importing, "open_store", lambda url: sqlite_store(next(trials)))
    mine = HomeBuilder(tmp_path / "mine")
    mine.trajectory("t0")
    mine.attempt("t0", 1, [mine.evaluation_line("t0", 20, value=1.5)])
    whole = Home(Path(shutil.copytree(mine.home.root, tmp_path / "whole")))
    take(bundle, whole, alone)
    expected = dump(whole)
    for number in range(30):
        home = Home(Path(shutil.copytree(mine.home.root, tmp_path / str(number))))
        try:
            with killed_at(number, monkeypatch):
                take(bundle, home, alone)
            break
        except Killed:
            assert set(dump(home)) >= set(dump(mine.home)), "what was there is there"
        take(bundle, home, alone)
        assert dump(home) == expected
        numbers(home, "t0")
        assert sorted(p.name for p in home.trajectory("t0").attempts.iterdir()) == ["0001", "0002", "0003", "0004"]
        left = [path.name for path in home.root.glob(".import*")]
        assert len(left) <= 1 and all(map(leftovers._HIDDEN.fullmatch, left)), "`study gc` knows what it is"
    assert number > 10


attempt_sets = st.dictionaries(st.integers(1, 6), st.sampled_from("abc"), max_size=5)


@given(here=attempt_sets, coming=attempt_sets)
def test_numbers(here: dict[int, str], coming: dict[int, str]) -> None:
    """Each attempt that comes is matched with an equal one here or gets a number of its own above all that are here,
    in the order of its own numbers; and importing again matches every one with itself."""
    numbers = importing.numbered(here, coming)
    assert numbers.keys() == coming.keys()
    assert len(set(numbers.values())) == len(numbers)
    new = {theirs: ours for theirs, ours in numbers.items() if ours not in here}
    for theirs, ours in numbers.items():
        assert ours in new.values() or here[ours] == coming[theirs]
    assert all(ours > max(here, default=0) for ours in new.values())
    assert sorted(new.values()) == [ours for _, ours in sorted(new.items())]
    for kind in "abc":
        ours, theirs = (list(side.values()).count(kind) for side in (here, coming))
        assert sum(coming[n] == kind for n in new) == max(0, theirs - ours)
    merged = here | {ours: coming[theirs] for theirs, ours in new.items()}
    again = importing.numbered(merged, coming)
    assert set(again.values()) <= merged.keys(), "nothing comes twice"
    if not here:
        assert all(theirs == ours for theirs, ours in numbers.items())

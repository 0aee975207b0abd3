"""Results to be committed: `study results --all`, reports from them, and `study audit`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reports.committed import committed_from
from results.committed import SEEN, as_store, read
from results.layout import Home
from results.queries import evaluations
from results.store import StoreError
from studies.cli.store import opened
from tests.homes import MICRO, study, succeeds
from tests.reports.committeddata import EARLIER, page_problems, problems, verdict_problems

FILES = ("micro_cpu.csv", "micro_cpu.json")


@pytest.fixture(scope="module")
def home(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(micro, tmp_path_factory.mktemp("committed") / "home"))


@pytest.fixture
def data(home: Path, tmp_path: Path) -> Path:
    """What is committed of the micro study."""
    succeeds("results", "--all", "--out", tmp_path / "data", home=home)
    return tmp_path / "data"


def altered(data: Path, change: Callable[[str], str]) -> None:
    """Change the CSV, and make its record say so."""
    table, described = (data / name for name in FILES)
    before = table.read_bytes()
    table.write_text(change(before.decode()), newline="")
    digests = (hashlib.sha256(content).hexdigest() for content in (before, table.read_bytes()))
    described.write_text(described.read_text().replace(*digests))


def test_the_same_store_gives_the_same_bytes_and_others_stay(data: Path, home: Path) -> None:
    before = [(data / name).read_bytes() for name in FILES]
    (data / "other_cpu.json").write_text("{}")
    said = succeeds("results", "--all", "--out", data, home=home)
    assert "micro at scale cpu: 6 points" in said
    assert before == [(data / name).read_bytes() for name in FILES]
    assert {path.name for path in data.iterdir()} - {SEEN} == {*FILES, "other_cpu.json"}
    record = json.loads(before[1])
    assert "host" not in record["runs"][0]["machine"]
    assert {work["kind"] for work in record["work"]} == {"train", "evaluate"}
    assert all(work["hours"] > 0 for work in record["work"])


def test_the_store_comes_back(data: Path, home: Path) -> None:
    with opened(Home(home)) as engine:
        frame = evaluations(engine, "micro", "cpu")
    again = as_store(read(data))
    assert evaluations(again, "micro", "cpu").equals(frame)
    rewritten = committed_from(again, Home(data), "micro", "cpu")
    assert rewritten.rows == read(data)[0].rows
    assert rewritten.record.model_copy(update={"work": []}) == read(data)[0].record.model_copy(update={"work": []})
    again.dispose()


def test_reports_from_it_are_those_from_the_home(data: Path, home: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    for arguments in (["claims", "micro", "--md"], ["claims", str(MICRO), "--json"]):
        said = succeeds(*arguments, "--from", data), succeeds(*arguments, home=home)
        there, here = (re.sub(r'"time": "[^"]+"', "", text) for text in said)  # that of judging
        assert there == here
    succeeds("report", "micro", "--from", data / FILES[0], "--out", tmp_path / "a")
    succeeds("report", "micro", "--out", tmp_path / "b", home=home)
    assert (tmp_path / "a" / FILES[0]).read_bytes() == (tmp_path / "b" / FILES[0]).read_bytes()
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before, "no verdict is recorded in it"


def test_what_was_seen_before_is_flagged(data: Path, home: Path, tmp_path: Path) -> None:
    """Also from committed results: the home's verdicts come along, and others that stand there stay."""
    own = Path(shutil.copytree(home, tmp_path / "home"))
    (own / SEEN).unlink(missing_ok=True)
    succeeds("claims", "micro", home=own)
    seen = (own / SEEN).read_text()
    (own / SEEN).write_text(seen.replace(json.loads(seen)["claim_hash"], "0" * 20))
    other = json.dumps({"study": "other", "scale": "cpu", "claim": "c", "time": "2026"}) + "\n"
    (data / SEEN).write_text(other)
    for _ in range(2):
        succeeds("results", "--all", "--out", data, home=own)
        mine, kept = (data / SEEN).read_text().splitlines(keepends=True)
        assert kept == other
        assert json.loads(mine)["details"].keys() == {"planned_seeds", "config_hash"}
    said = succeeds("claims", "micro", "--from", data / FILES[0], "--md")
    assert "**Flag:** more_v_is_better: the predicate was edited after a verdict was seen" in said, said
    assert said == succeeds("claims", "micro", "--md", home=own)
    (data / SEEN).write_text("{}\n")
    assert "holds what is no verdict" in study("results", "--all", "--out", data, home=own).stderr


def test_the_processor_of_this_machine_is_known(home: Path, tmp_path: Path) -> None:
    """Of runs recorded by versions that did not ask for it."""
    own = Path(shutil.copytree(home, tmp_path / "home"))
    (run,) = own.glob("runs/*/run.json")
    record = json.loads(run.read_text())
    cpu = record["provenance"]["machine"].pop("cpu")
    run.write_text(json.dumps(record))
    succeeds("db", "rebuild", home=own)
    with opened(Home(own)) as engine:
        here = {**record["provenance"]["machine"], "cpu": cpu}
        told = [
            committed_from(engine, Home(own), "micro", "cpu", machine).record.runs[0].machine.get("cpu")
            for machine in (here, {**here, "host": "another"}, None)
        ]
    assert told == [cpu, None, None]


def test_what_is_committed_is_checked(data: Path, tmp_path: Path) -> None:
    (one,) = read(data)
    assert problems(one, str(MICRO)) == []
    other = one.record.model_copy(update={"config_hash": "0" * 20})
    assert EARLIER in problems(replace(one, record=other), str(MICRO))[0]
    rows = [{**one.rows[0], "evaluation": "0" * 20}, *one.rows[1:]]
    assert "other keys" in problems(replace(one, rows=rows), str(MICRO))[0]


def test_what_is_published_is_checked(data: Path, tmp_path: Path) -> None:
    (one,) = read(data)
    page = tmp_path / "micro_cpu.md"
    assert page_problems(one, data, tmp_path) == verdict_problems(data / FILES[1], tmp_path) == []
    page.write_text(succeeds("claims", "micro", "--from", data, "--md"))
    assert page_problems(one, data, tmp_path) == verdict_problems(data / FILES[1], tmp_path) == []
    page.write_text(page.read_text().replace("primary | undecided", "primary | supported"))
    assert "is not what" in page_problems(one, data, tmp_path)[0]
    assert "PUBLISHED AS supported" in verdict_problems(data / FILES[1], tmp_path)[0]
    page.write_text("### another: UNDECIDED at scale cpu\n| frechet_pixel | primary | undecided |\n")
    assert verdict_problems(data / FILES[1], tmp_path)[0].startswith("micro_cpu/another: PUBLISHED AS a claim")


BROKEN: dict[str, Callable[[Path], object]] = {
    "sha256": lambda data: (data / FILES[0]).write_text((data / FILES[0]).read_text() + "\n"),
    "cannot be read": lambda data: (data / FILES[0]).unlink(),
    "no record of committed results": lambda data: (data / FILES[1]).write_text("[]"),
    "otherwise": lambda data: altered(data, lambda text: text.rsplit("\n", 2)[0] + "\n"),
    "its columns are not": lambda data: altered(data, lambda text: text.replace("panel,", "axes,", 1)),
    "has no protocol": lambda data: altered(data, lambda text: text.replace(",ema,2", ",ema,3", 1)),
    "line 2 cannot be read": lambda data: altered(data, lambda text: text.replace(",0,u_finetune", ",x,u_finetune", 1)),
    "holds no committed results": lambda data: [path.unlink() for path in data.iterdir()],
    "code": lambda data: (data / FILES[1]).write_text(
        (data / FILES[1]).read_text().replace('"sources": {}', '"sources": {"0": {"file": "a.py", "text": "boom"}}')
    ),
}


@pytest.mark.parametrize("says", BROKEN)
def test_what_is_damaged_is_refused(data: Path, says: str) -> None:
    BROKEN[says](data)
    with pytest.raises(StoreError, match=says):
        as_store(read(data))


def test_refused(home: Path, tmp_path: Path) -> None:
    for arguments, says in (
        (("results",), "--study STUDY, or --all"),
        (("results", "--all"), "--out FOLDER"),
        (("results", "--all", "--study", "micro", "--out", tmp_path), "besides only --scale"),
        (("results", "--all", "--scale", "nope", "--out", tmp_path), "cpu"),
    ):
        done = study(*arguments, home=home)
        assert done.returncode == 2 and says in " ".join(done.stderr.split()), done
    assert "there is no folder" in study("claims", "micro", "--from", tmp_path / "no").stderr
    (tmp_path / "micro_cpu.json").write_text("{}")
    assert "no record" in study("results", "--all", "--out", tmp_path, home=home).stderr


def test_an_audit_trains_again_and_tells_what_differs(data: Path, tmp_path: Path) -> None:
    """One value is not what training gives: that arm's end."""
    end = next(row for row in read(data)[0].rows if (row["arm"], row["epoch"]) == ("v0", "2"))
    altered(data, lambda text: text.replace(end["value"], repr(float(end["value"]) * 1.001)))
    kept = tmp_path / "kept"
    done = study("audit", data, "--inline", "--home", kept)
    assert done.returncode == 1, done
    table = [line.split() for line in done.stdout.splitlines() if line.startswith("micro ")]
    assert sorted(row[3:9] for row in table) == [["v0", "0", "2", "1", "0", "0"], ["v2", "0", "3", "3", "0", "0"]]
    assert "5 values on the processor and with the versions of the results: 1 of them differs" in done.stdout
    assert done.stdout.endswith("NOT confirmed\n")
    again = study("audit", data, "--inline", "--home", kept)
    assert again.returncode == 2 and "is not empty" in again.stderr


def test_an_audit_begins_nothing_when_the_time_is_over(home: Path, tmp_path: Path) -> None:
    """Of a bundle, which is audited as well."""
    bundle = tmp_path / "micro.tar.gz"
    succeeds("bundle", bundle, home=home)
    late = study("audit", bundle, "--inline", "--minutes", "0")
    assert late.returncode == 1 and late.stdout.count("not begun in time") == 2, late
    assert late.stdout.endswith("nothing was trained again, so nothing is confirmed\n")


def test_an_audit_says_what_this_version_makes_otherwise(data: Path) -> None:
    key = read(data)[0].rows[0]["evaluation"]
    altered(data, lambda text: text.replace(key, "0" * 20))
    done = study("audit", data, "--inline", "--minutes", "0", "--seed", "1", "--sample", "9")
    assert "drawn: 2 of 2 arms and seeds" in done.stdout
    assert done.stdout.count("this version trains or measures it otherwise; use that of commit") == 1, done.stdout

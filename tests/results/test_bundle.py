"""Bundles: what goes in, and that nothing but what was written comes out."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.bundle import BundleError, is_name
from results.bundling import Taken, write_bundle
from results.importing import take
from results.layout import Home, TrajectoryDir
from results.recorded import run_names
from tests.results.conftest import HomeBuilder

RUN = "runs/20261120T120501-aaaaaa/run.json"


def alone(_folder: TrajectoryDir) -> nullcontext[bool]:
    return nullcontext(True)


@pytest.fixture
def origin(builder: HomeBuilder) -> Home:
    home = builder.standard()
    folder = home.trajectory("t0")
    for path in (folder.attempt(1) / "log.txt", folder.attempt(2) / "images-e1.npy", folder.checkpoint(20) / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    for path in (folder.lease("train"), home.root / "store.sqlite", folder.attempt(1) / ".DONE.json.12"):
        path.write_text("stays")
    return home


@pytest.fixture
def bundle(origin: Home, tmp_path: Path) -> Path:
    return written(origin, tmp_path / "b.tar.gz")


def written(home: Home, out: Path, taken: Taken = Taken(), runs: list[str] | None = None) -> Path:  # noqa: B008
    write_bundle(out, home, run_names(home) if runs is None else runs, taken)
    return out


def contents(bundle: Path) -> dict[str, bytes]:
    with tarfile.open(bundle) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def names(bundle: Path) -> set[str]:
    return set(contents(bundle)) - {"manifest.json"}


def files(root: Path) -> dict[str, bytes]:
    """All files of a home by name, but for the store."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != "store.sqlite"
    }


def test_what_goes_in_and_what_stays(bundle: Path, origin: Home) -> None:
    stays = (".lease", ".npy", "log.txt", ".12", "/x")
    there = {name for name in files(origin.root) if not name.endswith(stays)}
    assert names(bundle) == there | {"trajectories/t0/released/000000020"}
    for name, data in contents(bundle).items():
        if name in there:
            assert data == (origin.root / name).read_bytes()


def test_the_manifest_comes_first_and_describes_the_rest(bundle: Path) -> None:
    found = contents(bundle)
    assert next(iter(found)) == "manifest.json"
    manifest = json.loads(found.pop("manifest.json"))
    assert (manifest["format"], manifest["kind"], manifest["weights"]) == (1, "meanflow-study bundle", None)
    assert manifest["version"] and manifest["created"]
    assert manifest["studies"] == [
        {"study": "s", "scale": "cpu", "variant": None, "runs": 2},
        {"study": "s", "scale": "cpu", "variant": "w", "runs": 1},
    ]
    assert manifest["files"] == [
        {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in found.items()
    ]
    assert list(found) == sorted(found)


def test_equal_homes_make_equal_bundles_but_for_the_time(bundle: Path, origin: Home, tmp_path: Path) -> None:
    again = contents(written(origin, tmp_path / "again.tar.gz"))
    assert {k: v for k, v in contents(bundle).items() if k != "manifest.json"} == {
        k: v for k, v in again.items() if k != "manifest.json"
    }
    assert not list(tmp_path.glob(".*")), "nothing is left aside"


def test_options(origin: Home, tmp_path: Path) -> None:
    plain = names(written(origin, tmp_path / "1.tar.gz"))
    logs = names(written(origin, tmp_path / "2.tar.gz", Taken(logs=True)))
    pictures = names(written(origin, tmp_path / "3.tar.gz", Taken(artefacts=True)))
    assert logs - plain == {"trajectories/t0/attempts/0001/log.txt"}
    assert pictures - plain == {"trajectories/t0/attempts/0002/images-e1.npy"}

    def snapshot(folder: TrajectoryDir, step: int) -> dict[str, Path | bytes]:
        name = f"{folder.root.name} {step}".encode()
        return {"ema.safetensors": name, "manifest.json": b"{}"} if step == 20 else {}

    weights = contents(written(origin, tmp_path / "4.tar.gz", Taken(snapshot=snapshot)))
    assert weights["trajectories/t0/snapshots/000000020/ema.safetensors"] == b"t0 20"
    assert json.loads(weights["manifest.json"])["weights"] == "ema"


def test_only_the_runs_asked_for_with_parents_and_verdicts(origin: Home, tmp_path: Path) -> None:
    second = contents(written(origin, tmp_path / "1.tar.gz", runs=["20261121T120501-bbbbbb"]))
    assert {name.split("/")[1] for name in second if name.startswith("trajectories/")} == {"t0", "t1"}, "t1's parent"
    assert {name.split("/")[1] for name in second if name.startswith("runs/")} == {"20261121T120501-bbbbbb"}
    (line,) = second["verdicts.jsonl"].splitlines()
    assert json.loads(line)["variant"] is None
    third = contents(written(origin, tmp_path / "2.tar.gz", runs=["20261122T120501-cccccc"]))
    assert not any(name.startswith("trajectories/") for name in third), "what it names was never trained"
    assert json.loads(third["verdicts.jsonl"])["variant"] == "w"


def test_a_file_that_grows_is_taken_as_it_was(origin: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import results.bundling as module

    real, path = module._write, origin.trajectory("t0").attempt(3) / "metrics.jsonl"
    before = path.read_bytes()

    def grown(*args: Any) -> None:
        path.write_bytes(before + b'{"type": "metr')
        real(*args)

    monkeypatch.setattr(module, "_write", grown)
    assert contents(written(origin, tmp_path / "b.tar.gz"))["trajectories/t0/attempts/0003/metrics.jsonl"] == before

    def changed(*args: Any) -> None:
        path.write_bytes(before[:-1])
        real(*args)

    monkeypatch.setattr(module, "_write", changed)
    with pytest.raises(BundleError, match=r"metrics\.jsonl changed while it was bundled; run the same command again"):
        written(origin, tmp_path / "c.tar.gz")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["b.tar.gz"]


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "runs/../x", "runs/r/../../x", "runs/r/run.json/", "runs//run.json", "runs/./run.json",
     "runs/.r/run.json", "trajectories/t0/train.lease", "store.sqlite", "trajectories/t0/checkpoints/000000020/x",
     "trajectories/t0/attempts/0001/../../../../x.npy", "trajectories/t0/attempts/1/segment.json",
     "trajectories/t0/attempts/0001/.x.npy", "trajectories/t0/attempts/0001/a\n.npy", "verdicts.jsonl\n",
     "runs/r/run.json\0", "trajectories/t\u0660/trajectory.json",
     "trajectories/t0/snapshots/00000002\u0660/ema.safetensors", "manifest.json", "", "runs\\r\\run.json",
     "C:/runs/r/run.json"],
)  # fmt: skip
def test_names_that_no_bundle_may_hold(name: str) -> None:
    assert not is_name(name)


Member = tuple[tarfile.TarInfo, bytes]


def packed(path: Path, members: list[Member], *, end: bytes = bytes(1024)) -> Path:
    out = b""
    for info, data in members:
        out += info.tobuf(format=tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)
    path.write_bytes(gzip.compress(out + end))
    return path


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE, **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def members_of(bundle: Path) -> list[Member]:
    return [member(name, data) for name, data in contents(bundle).items()]


def described(members: list[Member], **fields: Any) -> list[Member]:
    """The same with a manifest that fits."""
    manifest = json.loads(members[0][1])
    manifest["files"] = [
        {"path": info.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for info, data in members[1:]
    ]
    return [member("manifest.json", json.dumps(manifest | fields).encode()), *members[1:]]


def with_file(members: list[Member], name: str, data: bytes, **fields: Any) -> list[Member]:
    others = [one for one in members[1:] if one[0].name != name]
    return [members[0], *sorted([*others, member(name, data, **fields)], key=lambda one: one[0].name)]


Change = Callable[[list[Member]], list[Member]]
ATTEMPT = "trajectories/t0/attempts/0001"
CHANGES: dict[str, tuple[Change, str]] = {
    "path traversal": (lambda m: described(with_file(m, "../evil", b"x")), "'../evil' is no file that a bundle may"),
    "absolute path": (lambda m: described(with_file(m, "/tmp/evil", b"x")), "'/tmp/evil' is no file"),
    "a lease": (lambda m: described(with_file(m, "trajectories/t0/train.lease", b"{}")), "is no file that"),
    "a store": (lambda m: described(with_file(m, "store.sqlite", b"x")), "is no file that a bundle may"),
    "undeclared": (lambda m: with_file(m, "trajectories/t0/released/000000099", b""), "stands where manifest.json"),
    "missing": (lambda m: [*m[:3], *m[4:]], "stands where manifest.json names"),
    "the last is missing": (lambda m: m[:-1], "the end stands where manifest.json names 'verdicts.jsonl'"),
    "twice": (lambda m: [*m[:2], m[1], *m[2:]], "stands where manifest.json names"),
    "twice, declared": (lambda m: described([*m[:2], m[1], *m[2:]]), "not in order, or one stands twice"),
    "something after the end": (lambda m: [*m, member("runs/x/run.json", b"x")], "something follows the files"),
    "other order": (lambda m: described([m[0], m[2], m[1], *m[3:]]), "not in order"),
    "symbolic link": (lambda m: [m[0], member(m[1][0].name, b"", tarfile.SYMTYPE, linkname="/etc/passwd"), *m[2:]],
                      "is no plain file"),
    "hard link": (lambda m: [m[0], member(m[1][0].name, b"", tarfile.LNKTYPE, linkname="/etc/passwd"), *m[2:]],
                  "is no plain file"),
    "device": (lambda m: [m[0], member(m[1][0].name, b"", tarfile.CHRTYPE), *m[2:]], "is no plain file"),
    "fifo": (lambda m: [m[0], member(m[1][0].name, b"", tarfile.FIFOTYPE), *m[2:]], "is no plain file"),
    "folder": (lambda m: [m[0], member("runs", b"", tarfile.DIRTYPE), *m[1:]], "is no plain file"),
    "sparse": (lambda m: [m[0], member(m[1][0].name, m[1][1], tarfile.GNUTYPE_SPARSE), *m[2:]], "is no plain file"),
    "extended header": (lambda m: [m[0], member("x", b"12 path=evil\n", tarfile.XHDTYPE), *m[1:]], "is no plain file"),
    "other content": (lambda m: [*m[:2], member(m[2][0].name, bytes(len(m[2][1]))), *m[3:]], "its sha256 is not that"),
    "larger than declared": (lambda m: [*m[:2], member(m[2][0].name, m[2][1] + b" "), *m[3:]], "bytes, not the"),
    "larger than the disk": (
        lambda m: [member("manifest.json", json.dumps(json.loads(m[0][1]) | {"files": [
            {"path": f"trajectories/t{i}/snapshots/000000000/ema.safetensors", "bytes": 2**33 - 1, "sha256": "0" * 64}
            for i in range(10000, 20000)]}).encode()), *m[1:]],
        "GiB are free"),
    "larger than any": (lambda m: described(m, files=[
        {"path": "verdicts.jsonl", "bytes": 2**33, "sha256": "0" * 64}]), "less than 8589934592"),
    "negative size": (
        lambda m: described(m, files=[{"path": "verdicts.jsonl", "bytes": -1, "sha256": "0" * 64}]), "bytes"),
    "no manifest": (lambda m: m[1:], "does not begin with manifest.json"),
    "manifest not first": (lambda m: [m[1], m[0], *m[2:]], "does not begin with manifest.json"),
    "newer format": (lambda m: described(m, format=2), "format 2, this program reads format 1; update meanflow-study"),
    "another kind": (lambda m: described(m, kind="x"), "kind"),
    "unknown key": (lambda m: described(m, extra=1), "extra"),
    "manifest is no JSON": (lambda m: [member("manifest.json", b"{"), *m[1:]], "manifest.json: "),
    "a run without run.json": (lambda m: described([one for one in m if one[0].name != RUN]), "has no run.json"),
    "a run of another name": (
        lambda m: described(with_file(m, RUN, dict(contents_of(m))[RUN].replace(b"aaaaaa", b"dddddd"))), "belongs in"),
    "a newer run": (
        lambda m: described(with_file(m, RUN, dict(contents_of(m))[RUN].replace(b'"format": 1', b'"format": 2'))),
        "is in format 2"),
    "a malformed line": (lambda m: described(with_file(m, f"{ATTEMPT}/metrics.jsonl", b"what?\n")), "line 1"),
    "a malformed verdict": (lambda m: described(with_file(m, "verdicts.jsonl", b"{}\n")), "verdicts.jsonl, line 1"),
    "another's attempt": (
        lambda m: described(with_file(m, f"{ATTEMPT}/segment.json", b'{"kind": "train", "trajectory": "t1"}')),
        "segment.json of attempt 0001"),
    "a number with more zeros": (
        lambda m: described(with_file(m, "trajectories/t0/attempts/00001/segment.json",
                                      dict(contents_of(m))[f"{ATTEMPT}/segment.json"])), "of attempt 00001"),
    "no trajectory.json": (
        lambda m: described([one for one in m if "t1/trajectory.json" not in one[0].name]), "no trajectory.json"),
}  # fmt: skip


def contents_of(members: list[Member]) -> list[tuple[str, bytes]]:
    return [(info.name, data) for info, data in members]


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_refused_leaves_no_trace(name: str, bundle: Path, tmp_path: Path) -> None:
    change, says = CHANGES[name]
    bad = packed(tmp_path / "bad.tar.gz", change(members_of(bundle)))
    mine = HomeBuilder(tmp_path / "mine")
    mine.run("20261120T120501-eeeeee")
    before = sorted(tmp_path.rglob("*"))
    for home in (tmp_path / "new", tmp_path / "mine"):
        with pytest.raises(BundleError) as caught:
            take(bad, Home(home), alone)
        assert says in str(caught.value), str(caught.value)
        assert str(bad) in str(caught.value)
        assert "Repair or move" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_unchanged_is_taken(bundle: Path, tmp_path: Path) -> None:
    """The changes above are refused for what they change, not for how the test packs them."""
    good = packed(tmp_path / "good.tar.gz", described(members_of(bundle)))
    assert take(good, Home(tmp_path / "new"), alone)[1].runs == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "cut off"), (b"no archive", "no tar.gz file, or damaged"), (gzip.compress(b""), "cut off"),
     (gzip.compress(b"x" * 5000), "no tar.gz file, or damaged"), (gzip.compress(bytes(10000)), "does not begin with")],
    ids=["empty", "text", "empty gzip", "gzip of text", "gzip of zeros"],
)  # fmt: skip
def test_what_is_no_bundle(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=says):
        take(path, Home(tmp_path / "home"), alone)
    with pytest.raises(BundleError, match=r"there is no file .*gone\.tar\.gz"):
        take(tmp_path / "gone.tar.gz", Home(tmp_path / "home"), alone)
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar.gz"]


def test_padding_without_end_is_refused(bundle: Path, tmp_path: Path) -> None:
    bomb = packed(tmp_path / "bomb.tar.gz", members_of(bundle), end=bytes(64 << 20))
    with pytest.raises(BundleError, match="padding does not end"):
        take(bomb, Home(tmp_path / "new"), alone)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_one_damaged_bit_or_a_cut_is_noticed_or_means_nothing(
    where: float, bit: int, cut: bool, bundle: Path, tmp_path: Path
) -> None:
    data = bytearray(bundle.read_bytes())
    place = int(where * len(data))
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(data)
    home = tmp_path / "taken"
    try:
        take(bad, Home(home), alone)
    except BundleError:
        assert not home.exists()
        return
    taken = files(home)
    shutil.rmtree(home)
    assert not cut
    # A bit means nothing in gzip's header, and where deflate has several ways to say the same.
    assert taken == {k: v for k, v in contents(bundle).items() if k != "manifest.json"}

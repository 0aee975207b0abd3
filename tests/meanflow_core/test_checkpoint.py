"""Checkpoints: whole or not at all, verified to the last byte, never a pickle."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meanflow_core.checkpoint import (
    MANIFEST,
    CheckpointError,
    Parts,
    load_checkpoint,
    publish,
    read_manifest,
    write_checkpoint,
)

META = {"trajectory": "a" * 20, "step": 800, "epoch": 1.5, "notes": {"z": [1, None], "a": "ü"}}


def parts(value: float = 1.0) -> Parts:
    return {
        "online": {"w": torch.full((3, 4), value), "b": torch.arange(5, dtype=torch.float64)},
        "ema": {"w": torch.full((3, 4), -value), "b": torch.zeros(0)},
        "optimiser": {"step/w": torch.tensor(7.0), "exp_avg/w": torch.ones(3, 4, dtype=torch.bfloat16)},
    }


def same(one: Parts, other: Parts) -> bool:
    return {p: set(t) for p, t in one.items()} == {p: set(t) for p, t in other.items()} and all(
        torch.equal(t, other[p][n]) and t.dtype == other[p][n].dtype and t.shape == other[p][n].shape
        for p, tensors in one.items()
        for n, t in tensors.items()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "800", parts(), META)
    return tmp_path / "800"


# --- written and read back ---------------------------------------------------------------------------------


def test_round_trip(folder: Path) -> None:
    loaded = load_checkpoint(folder, expect={"trajectory": "a" * 20, "step": 800})
    assert same(loaded.parts, parts())
    assert loaded.meta == META
    assert sorted(p.name for p in folder.iterdir()) == [
        "ema.safetensors",
        MANIFEST,
        "online.safetensors",
        "optimiser.safetensors",
    ]


def test_some_parts(folder: Path) -> None:
    (folder / "online.safetensors").unlink()
    assert list(load_checkpoint(folder, ["ema"]).parts) == ["ema"]


def test_no_parts_and_empty_parts(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "0", {"online": {}}, {})
    assert load_checkpoint(tmp_path / "0").parts == {"online": {}}


def test_tensors_with_gradients_and_strides(tmp_path: Path) -> None:
    w = torch.arange(12.0).view(3, 4).t().requires_grad_()
    write_checkpoint(tmp_path / "0", {"online": {"w": w}}, {})
    back = load_checkpoint(tmp_path / "0").parts["online"]["w"]
    assert torch.equal(back, w)
    assert not back.requires_grad


def test_meta_may_be_any_json(tmp_path: Path) -> None:
    """Whatever order or number it has: the manifest's own hash must not refuse what it wrote."""
    meta = {"b": {10: "ten", 9: "nine"}, "a": (1, 2), "x": 1e-320, "y": 0.1 + 0.2, "big": 2**70, "e": "é\u2028"}
    write_checkpoint(tmp_path / "0", {}, meta)
    assert load_checkpoint(tmp_path / "0").meta == json.loads(json.dumps(meta))


def test_never_written_over(folder: Path) -> None:
    with pytest.raises(FileExistsError):
        write_checkpoint(folder, parts(2.0), META)
    assert same(load_checkpoint(folder).parts, parts())


# --- damage ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """One checkpoint for all examples of damage, and its files' bytes."""
    target = tmp_path_factory.mktemp("damage") / "800"
    write_checkpoint(target, parts(), META)
    yield target, {p.name: p.read_bytes() for p in target.iterdir()}


FILES = ["manifest.json", "online.safetensors", "ema.safetensors", "optimiser.safetensors"]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from([MANIFEST, *FILES]), where=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_damaged_byte(healthy: tuple[Path, dict[str, bytes]], file: str, where: int, byte: int) -> None:
    target, files = healthy
    damaged = bytearray(files[file])
    at = where % len(damaged)
    if damaged[at] == byte:
        byte ^= 0x20
    damaged[at] = byte
    (target / file).write_bytes(damaged)
    try:
        with pytest.raises(CheckpointError, match=re.escape(file)):
            load_checkpoint(target)
    finally:
        (target / file).write_bytes(files[file])


def test_every_bit_of_the_manifest(healthy: tuple[Path, dict[str, bytes]]) -> None:
    """Its meta is not covered by any file's hash, and white space means nothing to JSON."""
    target, files = healthy
    data = files[MANIFEST]
    try:
        for at in range(len(data)):
            for bit in (0, 3, 5, 7):
                damaged = bytearray(data)
                damaged[at] ^= 1 << bit
                (target / MANIFEST).write_bytes(damaged)
                with pytest.raises(CheckpointError):
                    load_checkpoint(target, [])
    finally:
        (target / MANIFEST).write_bytes(data)
    assert load_checkpoint(target, []).meta == META


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), keep=st.floats(0, 1, exclude_max=True), grow=st.binary(max_size=3))
def test_truncated_or_grown(healthy: tuple[Path, dict[str, bytes]], file: str, keep: float, grow: bytes) -> None:
    target, files = healthy
    data = files[file]
    changed = data + grow if grow else data[: int(keep * len(data))]
    (target / file).write_bytes(changed)
    try:
        with pytest.raises(CheckpointError, match=re.escape(file)):
            load_checkpoint(target)
    finally:
        (target / file).write_bytes(data)


@pytest.mark.parametrize("file", FILES)
def test_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file.split(".", maxsplit=1)[0]):
        load_checkpoint(folder)


def test_part_that_was_never_written(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"transform\.x.*missing"):
        load_checkpoint(folder, ["transform.x"])


def test_parts_swapped(folder: Path) -> None:
    (folder / "ema.safetensors").write_bytes((folder / "online.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"ema.*sha256"):
        load_checkpoint(folder)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "3",
        '"format"',
        "{}",
        '{"format": 1}',
        '{"format": 1, "files": [], "meta": {}}',
        '{"format": 1, "files": {"online.safetensors": 3}, "meta": {}}',
        "\xff\xfe",
        "1" * 5000,
    ],
)
def test_manifest_of_something_else(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=MANIFEST):
        load_checkpoint(folder)


def test_manifest_of_another_version(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="written in format 2, this version reads 1"):
        read_manifest(folder)


def test_message_says_what_to_do(folder: Path) -> None:
    (folder / "ema.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"Move the folder .* away and run again"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "expect", [{"trajectory": "b" * 20}, {"step": 801}, {"step": "800"}, {"trajectory": "a" * 20, "step": None}]
)
def test_foreign_checkpoint(folder: Path, expect: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="a foreign checkpoint"):
        load_checkpoint(folder, expect=expect)


# --- no pickle ---------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_never_read(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the manifest vouches for its hash."""
    folder = tmp_path / "800"
    trap = tmp_path / "exploded"
    data = pickle.dumps(Bomb(trap))
    if how == "torch":
        torch.save({"w": Bomb(trap)}, tmp_path / "x.pt")
        data = (tmp_path / "x.pt").read_bytes()
    monkeypatch.setattr("meanflow_core.checkpoint.save_safetensors", lambda tensors: data)
    write_checkpoint(folder, {"online": {}}, META)
    manifest = read_manifest(folder)
    assert manifest["files"]["online.safetensors"]["sha256"] == hashlib.sha256(data).hexdigest()
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(folder)
    assert not trap.exists()


# --- published ---------------------------------------------------------------------------------------------


def test_publish_moves(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "staged", parts(), META)
    target = tmp_path / "trajectories" / "t" / "checkpoints" / "800"
    assert publish(tmp_path / "staged", target)
    assert not (tmp_path / "staged").exists()
    assert same(load_checkpoint(target).parts, parts())


def test_publish_cannot_replace(tmp_path: Path) -> None:
    target = tmp_path / "800"
    for i, first in ((1, True), (2, False), (3, False)):
        write_checkpoint(tmp_path / "staged", parts(i), META)
        assert publish(tmp_path / "staged", target) is first
        assert not (tmp_path / "staged").exists(), "nothing is left behind"
        assert same(load_checkpoint(target).parts, parts(1))


def test_publish_over_a_file_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "staged", parts(), META)
    (tmp_path / "800").write_text("in the way")
    with pytest.raises(OSError, match="800"):
        publish(tmp_path / "staged", tmp_path / "800")
    assert (tmp_path / "staged").is_dir(), "what could not be published is kept"
    assert (tmp_path / "800").read_text() == "in the way"


def test_publish_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "staged", tmp_path / "800")
    assert not (tmp_path / "800").exists()


def _publish_in_process(barrier: Any, staged: Path, target: Path, won: Any) -> None:
    barrier.wait()
    won.put(publish(staged, target))


@pytest.mark.parametrize("round_", range(3))
def test_racing_threads(tmp_path: Path, round_: int) -> None:
    n, target = 8, tmp_path / "checkpoints" / "800"
    for i in range(n):
        write_checkpoint(tmp_path / f"staged{i}", parts(i), META)
    barrier = Barrier(n)

    def go(i: int) -> bool:
        barrier.wait()
        return publish(tmp_path / f"staged{i}", target)

    with ThreadPoolExecutor(n) as pool:
        won = list(pool.map(go, range(n)))
    assert won.count(True) == 1
    assert same(load_checkpoint(target).parts, parts(won.index(True)))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]


def test_racing_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    n, target = 4, tmp_path / "800"
    for i in range(n):
        write_checkpoint(tmp_path / f"staged{i}", parts(i), META)
    barrier, won = context.Barrier(n), context.Queue()
    processes = [
        context.Process(target=_publish_in_process, args=(barrier, tmp_path / f"staged{i}", target, won))
        for i in range(n)
    ]
    for p in processes:
        p.start()
    results = [won.get(timeout=30) for _ in processes]
    for p in processes:
        p.join()
    assert results.count(True) == 1
    assert len(load_checkpoint(target).parts) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["800"]


def test_interrupted_write_is_not_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest comes last: a full disk leaves a folder that nothing takes for a checkpoint."""
    from meanflow_core import checkpoint

    plain, written = checkpoint._write, []

    def full(path: Path, data: bytes) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        plain(path, data)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "staged", parts(), META)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "staged")
    shutil.rmtree(tmp_path / "staged")

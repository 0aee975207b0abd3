"""study export against the trackers themselves: event files, MLflow's own store, Weights & Biases offline."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import socket
import struct
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from studies.cli.progress import tracked
from studies.errors import StudyError
from sweeps.exports import mlflow, server
from tests.homes import TINY, environment, study, succeeds

ARM = "tiny/left/v2"
POINTS = (0, 20, 40, 60)  # steps at which the arm is measured: each stage at its start, every two epochs, at its end


def expected(home: Path) -> dict[str, dict[int, float]]:
    """What the arm's log and evaluations hold, from its files: by name and step."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in succeeds("results", "--study", TINY, home=home).splitlines()[1:]:
        cells = row.split(",")
        if cells[4:6] == ["left", "v2"]:
            found["frechet_pixel/1nfe"][int(cells[11])] = float(cells[16])
    for path in home.glob("trajectories/*/attempts/*/segment.json"):
        job = json.loads(path.read_text())
        lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        ours = job["dynamics"]["fm_ratio"] == 1.0 or (job["parent"] or ["", 0])[1] == 20
        for line in (line for line in lines if ours and "values" in line):
            last = 20 if job["dynamics"]["fm_ratio"] == 1.0 else 60
            if line["step"] <= last and "loss" in line["values"]:
                found["loss"][line["step"]] = line["values"]["loss"]
    return found


def events(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of an event file, which is a sequence of records: length, checksum, an Event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    data, at = path.read_bytes(), 0
    found: dict[str, dict[int, float]] = defaultdict(dict)
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        event = Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found[value.tag][event.step] = value.simple_value
        at += 16 + length
    return found


def test_tensorboard(copy: Path, tmp_path: Path) -> None:
    to, run = tmp_path / "tb", tmp_path / "tb" / "tiny_at_cpu" / "left" / "v2" / "seed0"
    assert "wrote 1 run to" in succeeds("export", "tensorboard", ARM, "--to", to, home=copy)
    found, wanted = events(run), expected(copy)
    assert set(wanted["frechet_pixel/1nfe"]) == set(POINTS)
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-6)
    assert "wrote 0 runs" in succeeds("export", "tensorboard", ARM, "--to", to, home=copy), "nothing is new"
    assert "wrote 6 runs" in succeeds("export", "tensorboard", "--to", to, home=copy), "of seven arms one was there"
    (run / "meanflow-study.txt").write_text("")  # as one that was interrupted leaves it
    assert "wrote 1 run to" in succeeds("export", "tensorboard", ARM, "--to", to, home=copy), "and goes on"
    (run / "meanflow-study.txt").unlink()
    refused = study("export", "tensorboard", ARM, "--to", to, home=copy)
    assert (refused.returncode, "not of `study export`" in refused.stderr) == (2, True)
    assert events(run) == found


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.stress
def test_mlflow(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    succeeds("export", "mlflow", ARM, "--to", uri, home=copy)
    client = real.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny at cpu").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("left/v2/seed0", "FINISHED")
    parameters = run.data.params
    assert (parameters["u_finetune.fm_ratio"], parameters["v_pretrain.epochs"], parameters["v_epochs"]) == (
        "0.0",
        "2",
        "2",
    )
    for name, values in expected(copy).items():
        history = {one.step: one.value for one in client.get_metric_history(run.info.run_id, name)}
        assert history == pytest.approx(values)
    succeeds("export", "mlflow", ARM, "--to", uri, home=copy)
    assert [one.info.run_id for one in client.search_runs([experiment])] == [run.info.run_id]
    client.set_tag(run.info.run_id, "meanflow_study.digest", "of an earlier export")
    succeeds("export", "mlflow", ARM, "--to", uri, home=copy)
    (again,) = client.search_runs([experiment])
    assert again.info.run_id != run.info.run_id, "what has changed replaces what was there"
    for stopped in (0, 2):  # before anything of the run is logged, and in the middle
        client.set_tag(again.info.run_id, "meanflow_study.digest", "of an earlier export")
        logged, calls = real.MlflowClient.log_batch, iter([*[False] * stopped, True])
        with monkeypatch.context() as patched:
            patched.setattr(
                real.MlflowClient,
                "log_batch",
                lambda *args, calls=calls, logged=logged, **kw: interrupt() if next(calls) else logged(*args, **kw),
            )
            assert study("export", "mlflow", ARM, "--to", uri, home=copy).returncode == 130
        succeeds("export", "mlflow", ARM, "--to", uri, home=copy)
        (again,) = client.search_runs([experiment])
        assert again.info.status == "FINISHED"
    refused = study("export", "mlflow", ARM, "--to", "nonsense://x", home=copy)
    assert (refused.returncode, "MLflow does not take it" in refused.stderr) == (2, True), refused.stderr


@pytest.mark.stress
def test_wandb(copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    succeeds("export", "wandb", ARM, "--to", tmp_path, home=copy)
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = run.read_bytes()
    assert all(word in content for word in (b"frechet_pixel/1nfe", b"loss", b"left/v2/seed0", b"u_finetune.fm_ratio"))
    assert "wrote 0 runs" in succeeds("export", "wandb", ARM, "--to", tmp_path, home=copy)
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb")) == [run]


def test_wrong_input_is_refused(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for args, said in (
        (("tensorflow",), "tensorflow"),
        (("tensorboard", "nobody"), "neither a study nor an arm is called 'nobody'"),
    ):
        done = study("export", *args, "--to", tmp_path / "out", home=copy)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    (tmp_path / "file").touch()
    for to in (tmp_path / "file", Path("/proc/nowhere")):
        done = study("export", "tensorboard", ARM, "--to", to, home=copy)
        assert (done.returncode, f"--to {to}: cannot write " in done.stderr) == (2, True), done.stderr
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    done = study("export", "wandb", home=copy)
    assert (done.returncode, "pip install 'meanflow-study[wandb]'" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_two_protocols_of_one_metric_are_two_series(copy: Path, tmp_path: Path) -> None:
    """And what was there before the second keeps its name."""
    measured = "      - {metric: {name: frechet, features: pixel}, samples: 100, every_epochs: 2}\n"
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY.read_text().replace(measured, measured.replace("100", "50") + measured))
    succeeds("run", file, home=copy)
    succeeds("export", "tensorboard", ARM, "--to", tmp_path, home=copy)
    found = events(tmp_path / "tiny_at_cpu" / "left" / "v2" / "seed0")
    rows = list(csv.DictReader(succeeds("results", "--study", TINY, home=copy).splitlines()))
    for name, samples in (("frechet_pixel/1nfe", "100"), ("frechet_pixel/1nfe_50samples", "50")):
        values = {
            int(row["step"]): float(row["value"])
            for row in rows
            if (row["panel"], row["arm"], row["samples"]) == ("left", "v2", samples)
        }
        assert found[name] == pytest.approx(values, rel=1e-6) and len(values) == len(POINTS)


def serve(say: bytes | None) -> socket.socket:
    """A server on loopback that says something to whoever comes, or nothing."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                came, _ = listening.accept()
                if say is not None:
                    with came:
                        came.recv(4096)
                        came.sendall(say)
                else:
                    kept.append(came)

    kept: list[socket.socket] = []
    threading.Thread(target=answer, daemon=True).start()
    return listening


HTTP = "HTTP/1.0 {}\r\nContent-Type: text/html\r\n\r\n{}"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (HTTP.format("500 Oh", "").encode(), "answers with HTTP 500"),
        (HTTP.format("200 OK", "<html>").encode(), "answers, but not as one"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answers, but not as one (BadStatusLine"),
        (None, "does not answer within 0.3 s"),
        (b"", "answers, but not as one (RemoteDisconnected"),
    ],
)
def test_a_server_that_is_none(says: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_S", 0.3 if says is None else 5.0)
    with serve(says) as listening, pytest.raises(StudyError) as refused:
        mlflow.check_server(f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert f"the server of MLflow {why}" in str(refused.value) and "\n" not in str(refused.value)


def test_a_database_that_is_none() -> None:
    """One line, and no password in it."""
    with serve(b"what?") as listening, pytest.raises(StudyError, match="the database cannot be used: ") as refused:
        mlflow.check_server(f"postgresql+psycopg://me:secret@127.0.0.1:{listening.getsockname()[1]}/db")
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_server_that_is_one_or_asks_who_comes() -> None:
    for says in (HTTP.format("200 OK", '{"experiments": []}'), HTTP.format("401 Who", "")):
        with serve(says.encode()) as listening:
            mlflow.check_server(f"http://127.0.0.1:{listening.getsockname()[1]}")
    mlflow.check_server("sqlite:///here.db")


def test_a_server_that_dies_in_between_is_waited_for_as_shortly() -> None:
    retries, seconds = (int(mlflow.PATIENCE[f"MLFLOW_HTTP_REQUEST_{name}"]) for name in ("MAX_RETRIES", "TIMEOUT"))
    assert (1 + retries) * seconds <= 10


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_nobody_listens(tracker: str, copy: Path) -> None:
    """One line, before the tracker's own client is loaded."""
    pytest.importorskip(tracker)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    env = environment(WANDB_MODE="online", WANDB_BASE_URL=url)
    done = study("export", tracker, ARM, "--to", url if tracker == "mlflow" else ".", home=copy, env=env)
    assert (done.returncode, " does not answer: " in done.stderr) == (2, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        err = io.StringIO()
        monkeypatch.setattr(err, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stderr", err)
        assert list(tracked(iter("abc"), "exporting", 3)) == list("abc")
        assert ("exporting" in err.getvalue()) == terminal

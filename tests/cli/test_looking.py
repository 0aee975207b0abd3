"""`study status`, `watch`, `logs` and `why` on real homes, whole and in disorder."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from results.layout import Home
from sweeps.lease import acquire
from tests.homes import MICRO, STUDY, TINY, Command, environment, study, succeeds, wait_for


def status(home: Path, *args: str | Path) -> dict[str, Any]:
    return json.loads(succeeds("status", *args, "--json", home=home))


def why(home: Path, *args: str | Path) -> list[dict[str, Any]]:
    return json.loads(succeeds("why", *args, "--json", home=home))["arms"]


def refused(*args: str | Path, home: Path, says: tuple[str, ...]) -> None:
    done = study(*args, home=home)
    assert done.returncode == 2, done.stdout + done.stderr
    for text in says:
        assert text in done.stderr


def segment(home: Path, stop: int) -> Path:
    """The folder of the attempt that trained v alone up to a step."""
    for path in sorted(home.glob("trajectories/*/attempts/*/segment.json")):
        job = json.loads(path.read_text())
        if job["kind"] == "train" and job["dynamics"]["fm_ratio"] == 1.0 and job["stop_step"] == stop:
            return path.parent
    raise AssertionError(f"nothing was trained to {stop}")


def undo(attempt: Path, stop: int) -> None:
    """As if an attempt had not come to its end."""
    (attempt / "DONE.json").unlink()
    shutil.rmtree(attempt.parents[1] / "checkpoints" / f"{stop:09d}")
    succeeds("db", "rebuild", home=attempt.parents[3])


def test_status_of_what_is_done(tiny: Path) -> None:
    (row,) = status(tiny, "--arms")["studies"]
    assert row["arms"] == {"total": 7, "done": 7}
    assert (row["segments"]["done"], row["segments"]["total"]) == (8, 8)
    assert (row["evaluations"]["done"], row["evaluations"]["total"]) == (18, 18)
    assert (row["epochs_left"], row["hours_left"], row["eta_hours"]) == (0, 0, None)
    text = succeeds("status", home=tiny)
    assert "7 of 7" in text and "8 of 8" in text and "18 of 18" in text and "nothing" in text


def test_one_filter_for_all(tiny: Path) -> None:
    arms = [(row["arm"], row["seeds"]) for row in status(tiny, "tiny/left", "joint", "--arms")["arms"]]
    assert arms == [("left/v0", 1), ("left/v2", 1), ("left/v4", 1), ("right/joint", 1)]
    (row,) = status(tiny, f"{TINY}/left/v4", "--scale", "c*", "--as", "-", "--seeds", "0-3")["studies"]
    assert (row["segments"]["total"], row["points"], row["arms"]["total"]) == (3, 3 + 2, 1)
    assert status(tiny, "--status", "failed,lost")["studies"] == []
    assert "nothing is failed or lost" in succeeds("status", "--status", "failed", "--status", "lost", home=tiny)
    assert "done: evaluate" in succeeds("status", "--status", "done", "--kind", "evaluate", home=tiny)
    for args, says in (
        (("nope",), ("neither a study nor an arm", "tiny at cpu", "tiny/right/joint")),
        (("tiny/nope",), ("no arm is called", "tiny/right/joint")),
        (("/",), ("names nothing",)),
        (("./none.yaml/left",), ("none.yaml",)),
        (("--scale", "long"), ("at scale 'long'", "tiny at cpu")),
        (("--seeds", "x"), ("0-5 or 0,3,7",)),
        (("--status", "dead"), ("--status dead", "preempted, lost")),
        (("--kind", "both"), ("--kind both", "available: train, evaluate")),
    ):
        for command in ("status", "watch", "logs"):
            refused(command, *args, home=tiny, says=says)


def test_lost_preempted_and_running_are_told_apart(copy: Path) -> None:
    attempt = segment(copy, 40)
    done = json.loads((attempt / "DONE.json").read_text())
    undo(attempt, 40)
    found = status(copy, "v4", "--arms")
    (row,) = found["studies"]
    assert (row["segments"]["lost"], row["arms"]["done"]) == (1, 0)
    assert row["epochs_left"] == 2
    (line,) = found["lost"]
    assert (line["kind"], line["cause"], line["attempt"]) == ("train", "lost", int(attempt.name))
    assert line["log"] == str(attempt / "log.txt")
    assert line["arms"] == ["tiny/left/v4", "tiny/right/v4"]
    assert "its process or machine died" in succeeds("status", home=copy)
    assert status(copy, "v0", "v2")["lost"] == [], "no other arm needs it"

    lease = acquire(Home(copy).trajectory(attempt.parents[1].name).lease("train"))
    assert lease is not None
    with lease:
        found = status(copy)
        (line,) = found["running"]
        assert f"process {os.getpid()} on" in line["holder"]
        (row,) = found["studies"]
        assert row["running"] == 1
        assert line["reached"] == 40, "as its log of metrics says"
        assert row["eta_hours"] == pytest.approx(row["hours_left"])
        assert "ETA with 1 job at a time" in row["hours_basis"]
    for reason, end, cause in (
        ("stopped on request at step 27", "preempted", "preempted"),
        ("stopped at step 27: time limit", "preempted", "timeout"),
        ("MemoryError", "failed", "out of memory"),
    ):
        (attempt / "DONE.json").write_text(json.dumps(done | {"status": end, "reason": reason, "stop_step": 27}))
        (line,) = status(copy, "--status", end)[end]
        assert (line["cause"], line["reason"]) == (cause, reason)
    text = succeeds("status", home=copy)
    assert "failed: train" in text and "(out of memory): MemoryError" in text


def test_a_run_that_cannot_be_read_hides_no_other(copy: Path) -> None:
    (run,) = copy.glob("runs/*/run.json")
    other = copy / "runs" / "29991231T000000000000-abcdef"
    shutil.copytree(run.parent, other)
    record = json.loads(run.read_text()) | {"run": other.name, "study": "odd"}
    record["config"] |= {"study": "odd", "dynamics": {"network": "gone"}}
    (other / "run.json").write_text(json.dumps(record))
    found = status(copy)
    assert [row["study"] for row in found["studies"]] == ["tiny"]
    (message,) = found["unreadable"]
    assert other.name in message and "gone" in message
    assert "unreadable: " in succeeds("status", home=copy)
    refused("logs", home=copy, says=(other.name,))
    succeeds("logs", "tiny", home=copy)


def test_watch_ends_when_all_is_done(tiny: Path) -> None:
    out = succeeds("watch", home=tiny)
    assert out == "tiny at cpu: trained 8 of 8 segments, measured 18 of 18, left: nothing\n"


@pytest.mark.slow
def test_watch_follows_a_run_to_its_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = Command("run", MICRO, "--workers", "1", home=home)
    assert wait_for(lambda: any(home.glob("trajectories/*/attempts/*")))
    watch = Command("watch", "micro", "--every", "0.2", home=home)
    code, output = watch.wait()
    assert code == 0, output
    lines = output.splitlines()
    assert len(lines) > 1 and len(set(lines)) == len(lines), "a line whenever something has changed"
    assert any("1 running" in line for line in lines)
    assert lines[-1].endswith("trained 3 of 3 segments, measured 5 of 5, left: nothing")
    assert run.wait()[0] == 0


def test_watch_is_ended_by_ctrl_c(copy: Path) -> None:
    undo(segment(copy, 20), 20)
    command = Command("watch", "--every", "60", home=copy)
    assert command.process.stdout is not None
    assert "1 lost" in command.process.stdout.readline()
    os.killpg(command.process.pid, signal.SIGINT)
    code, output = command.wait(60)
    assert code == 130, output


def test_watch_on_a_terminal_draws_tables(tiny: Path) -> None:
    ours, theirs = pty.openpty()
    command = [str(STUDY), "watch", "--arms", "--home", str(tiny)]
    done = subprocess.run(
        command, stdout=theirs, stderr=subprocess.PIPE, env=environment(TERM="xterm"), timeout=60, check=False
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert "tiny at cpu" in drawn and "right/joint" in drawn and "┃" in drawn


def test_logs_show_the_newest_attempt(copy: Path) -> None:
    attempt = segment(copy, 40)
    (attempt / "log.txt").write_bytes(b"one\ntwo \xff\nthree")
    os.utime(attempt / "log.txt", (2e9, 2e9))
    out = succeeds("logs", "tiny/left/v4", home=copy)
    head, path, *rest = out.splitlines()
    assert head.startswith("== train ") and "20→40 (seed 0)" in head and head.endswith("attempt 2: done")
    assert path == f"== {attempt / 'log.txt'}"
    assert rest[:3] == ["one", "two \N{REPLACEMENT CHARACTER}", "three"]
    assert rest[3] == f"== recorded in {attempt / 'metrics.jsonl'}: 4 lines, the last:"
    assert re.fullmatch(r"step 40: loss [0-9.e+-]+, v_mse [0-9.e+-]+", rest[-2]), "losses, where they are, and the last"
    assert rest[-1] == "(matching too: 5 earlier attempts; --all shows all)" and len(rest) == 3 + 1 + 3 + 1
    last = succeeds("logs", "tiny/left/v4", "--lines", "1", home=copy).splitlines()
    assert last[2:4] == ["(2 earlier lines; --lines 0 shows all)", "three"]
    every = succeeds("logs", "tiny/left/v4", "--all", home=copy)
    assert every.count(", attempt ") == 6 and every.rindex("three") > every.rindex("== evaluate")
    measured = succeeds("logs", "tiny/left/v4", "--kind", "evaluate", "--all", home=copy)
    assert measured.count("== evaluate") == 3 and measured.count("(it printed nothing)") == 3
    assert "step 80: frechet_pixel at 1 NFE: " in measured
    assert "three" not in succeeds("logs", "tiny/left/v0", home=copy), "it does not need that trajectory"
    assert "== done" in succeeds("logs", "tiny/left/v4", "--follow", home=copy)
    refused("logs", "--attempt", "99", home=copy, says=("no attempt 99", "available: 1, 2"))
    refused("logs", "--all", "--follow", home=copy, says=("leave out --all",))
    refused("logs", "--status", "running", home=copy, says=("nothing of this",))
    (attempt / "log.txt").unlink()
    assert "(it has written no log)" in succeeds("logs", "tiny/left/v4", "--kind", "train", "--all", home=copy)


def test_logs_follow_until_the_attempt_ends(copy: Path) -> None:
    attempt = segment(copy, 40)
    done = (attempt / "DONE.json").read_text()
    undo(attempt, 40)
    (attempt / "log.txt").write_text("before\n")
    lease = acquire(Home(copy).trajectory(attempt.parents[1].name).lease("train"))
    assert lease is not None
    with lease:
        command = Command("logs", "v4", "-f", home=copy)
        assert command.process.stdout is not None
        head = command.process.stdout.readline()
        assert ": running, held by process" in head
        assert command.process.stdout.readline() == f"== {attempt / 'log.txt'}\n"
        assert command.process.stdout.readline() == "before\n"
        with (attempt / "log.txt").open("a") as log:
            log.write("during\n")
        assert command.process.stdout.readline() == "during\n"
        (attempt / "DONE.json").write_text(done)
    code, output = command.wait(60)
    assert (code, output) == (0, "== done\n")


def test_why_nothing_would_be_run(tiny: Path) -> None:
    arms = why(tiny, TINY)
    assert len(arms) == 7 and all(arm["complete"] for arm in arms)
    assert succeeds("why", TINY, home=tiny).count("would not be run again") == 7


def test_why_another_dynamics_protocol_or_seed_would_be_run(tiny: Path) -> None:
    (arm,) = why(tiny, f"{TINY}/left/v2", "-o", "dynamics.optimiser.lr=0.001", "--as", "slow")
    assert [t["state"] for t in arm["trajectories"]] == ["missing", "missing"]
    root, child = (t["nearest"]["differences"] for t in arm["trajectories"])
    assert root == [{"part": "optimiser.lr", "there": 0.002, "wanted": 0.001}]
    assert [d["part"] for d in child] == ["parent checkpoint", "optimiser.lr"]
    assert sum(t["epochs_left"] for t in arm["trajectories"]) == 2 + 4
    (arm,) = why(tiny, f"{TINY}/left/v2", "-o", "measure.0.samples=50", "--as", "few")
    assert [t["state"] for t in arm["trajectories"]] == ["there", "there"]
    (missing,) = arm["evaluations"]
    assert missing["nearest"]["differences"] == [{"part": "samples", "there": 100, "wanted": 50}]
    text = succeeds("why", f"{TINY}/left/v2", "--seeds", "0-3", home=tiny)
    assert "tiny/left/v2, seeds 1-3 (shown: 1)" in text and "seed 0 → 1" in text
    assert text.count("would not be run again") == 1


def test_why_agrees_with_plan(copy: Path) -> None:
    """What an explanation of all arms leaves to do is what a plan would do."""
    root = segment(copy, 20).parents[1]
    shutil.rmtree(root / "checkpoints" / f"{20:09d}")
    assert json.loads(succeeds("plan", TINY, "--json", home=copy))["missing"]["cost"]["epochs"] == 2
    arms = {f"{arm['panel']}/{arm['arm']}": arm for arm in why(copy, TINY)}
    concerned = {name for name, arm in arms.items() if not arm["complete"]}
    assert concerned == {"left/v2", "left/v4", "right/v2", "right/v4"}
    (left,) = arms["left/v2"]["trajectories"][0]["left"]
    assert "trained to step 40 before, but the checkpoint at step 20 is not kept" in left["why"]
    assert "train 0 → 20: trained to step 40 before" in succeeds("why", f"{TINY}/left/v2", home=copy)


def test_why_and_logs_say_how_the_last_attempt_ended(copy: Path) -> None:
    attempt = segment(copy, 40)
    done = json.loads((attempt / "DONE.json").read_text())
    undo(attempt, 40)
    (attempt / "log.txt").write_text("Diverged: at step 27\n")
    end = {"status": "failed", "reason": "Diverged: at step 27", "stop_step": 27}
    (attempt / "DONE.json").write_text(json.dumps(done | end))
    (arm,) = why(copy, f"{TINY}/left/v4")
    root, child = arm["trajectories"]
    assert root["tried"] == "attempt 2 ended: user error: Diverged: at step 27"
    assert (root["state"], child["state"]) == ("partly", "there")
    assert root["left"] == [{"start_step": 20, "stop_step": 40, "why": "never trained past step 27"}]
    head, _, *text = succeeds("logs", "--status", "failed", home=copy).splitlines()
    assert head.endswith("attempt 2: failed (user error): Diverged: at step 27")
    assert text[0] == "Diverged: at step 27"


def test_why_of_what_was_never_run_or_is_not_declared(tiny: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    text = succeeds("why", f"{TINY}/left/v0", home=none)
    assert f"nothing is stored in {none} yet" in text and "never trained" in text
    assert not none.exists(), "it makes nothing"
    refused("why", f"{TINY}/left/nope", home=tiny, says=("no arm is called", "tiny/left/v0"))
    refused("why", "nope/left", home=tiny, says=("unknown study 'nope'",))
    for command in (("why", "tiny/left"), ("plan", "tiny"), ("run", "tiny"), ("verify", "tiny"), ("sweep", "tiny")):
        refused(*command, home=tiny, says=(f"{tiny} has runs of 'tiny'", "give its path, ./tiny.yaml"))
    refused("why", TINY, "-o", "threads=2", home=tiny, says=("--as NAME",))

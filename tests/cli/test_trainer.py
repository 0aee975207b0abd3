"""A trainer of your own, from the command line: tests/assets/trainer, which imports none of the project's packages."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.homes import Command, attempts, dump, study, succeeds, unfinished, wait_for

pytestmark = pytest.mark.slow  # whole commands that train

ASSETS = Path(__file__).parents[1] / "assets" / "trainer"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "trainer"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The trainer and its study, in a folder of the user's."""
    return Path(shutil.copytree(ASSETS, tmp_path / "own"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study was verified and run. To be copied, never changed."""
    home = tmp_path_factory.mktemp("done") / "home"
    succeeds("verify", ASSETS / "foreign.yaml", home=home)
    succeeds("run", ASSETS / "foreign.yaml", home=home)
    return home


def changed(folder: Path, *pairs: tuple[str, str], file: str = "train.py") -> None:
    path = folder / file
    text = path.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def published(home: Path) -> dict[str, bytes]:
    """Every published checkpoint's weights, by path."""
    paths = sorted(home.glob("trajectories/*/*s/[0-9]*/state/deep/weights.npy"))
    return {str(path.relative_to(home)): path.read_bytes() for path in paths}


def naive(seed: int, v_steps: int, u_steps: int, rate: float = 0.05) -> np.ndarray:
    """The test trainer's recursion, run in one go."""
    weights = np.random.default_rng(seed).normal(size=4)
    for step in range(v_steps + u_steps):
        towards = np.random.default_rng([seed, step]).normal(size=4) + (2 if step < v_steps else 0)
        weights = weights + rate * (towards - weights)
    return weights


def test_prefixes_are_shared_and_every_arm_is_what_it_would_be_alone(done: Path) -> None:
    plan = json.loads(succeeds("plan", ASSETS / "foreign.yaml", "--json", home=done))
    assert (plan["naive_epochs"], plan["planned_epochs"]) == (8, 7)
    assert plan["missing"]["segments"] == plan["missing"]["evaluations"] == 0
    ends = {path.parent.parent.parent for path in done.glob("trajectories/*/checkpoints/000000080/state/deep/*")}
    found = [np.load(end / "state" / "deep" / "weights.npy") for end in sorted(ends)]
    for v_steps in (20, 40):
        wanted = naive(0, v_steps, 80 - v_steps)
        assert any(np.array_equal(wanted, weights) for weights in found)


def test_what_it_reports_and_what_we_measure_is_in_the_store(done: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(done, tmp_path / "home"))
    read = list(csv.DictReader(succeeds("results", "--study", "foreign", home=home).splitlines()))
    ends = {row["arm"]: float(row["value"]) for row in read if row["metric"] == "size" and row["epoch"] == "4.0"}
    for v_epochs in (1, 2):
        assert ends[f"v{v_epochs}"] == pytest.approx(abs(naive(0, 20 * v_epochs, 80 - 20 * v_epochs)).sum(), rel=1e-12)
    assert all(float(row["value"]) > 0 for row in read if row["metric"] == "frechet_pixel")
    out = tmp_path / "report"
    succeeds("report", "foreign", "--out", out, home=home)
    assert (out / "foreign_cpu.png").stat().st_size > 10_000
    succeeds("sample", "foreign/all/*", "--nfe", "1", "--out", out, home=home)
    assert (out / "samples.png").exists()
    succeeds("db", "rebuild", home=home)
    bundle = tmp_path / "b.tar.gz"
    succeeds("bundle", bundle, "--weights", "ema", home=home)
    refused = study("db", "import", bundle, home=tmp_path / "elsewhere")
    assert (refused.returncode, "brings code or commands" in refused.stderr) == (2, True), refused.stderr
    assert "train.py --segment '{segment}'" in succeeds(
        "db", "import", bundle, "--show-code", home=tmp_path / "elsewhere"
    )
    succeeds("db", "import", bundle, "--trust-code", home=tmp_path / "elsewhere")
    succeeds("db", "import", bundle, home=tmp_path / "elsewhere")
    assert dump(tmp_path / "elsewhere") == dump(home)
    assert not list((tmp_path / "elsewhere").glob("trajectories/*/*/*/state")), "no program's files travel"


def test_exact_is_a_promise_that_is_tested_before_it_is_relied_on(own: Path, tmp_path: Path) -> None:
    home, mine = tmp_path / "home", own / "foreign.yaml"
    refused = study("run", mine, home=home)
    assert (refused.returncode, "which was never verified" in refused.stderr) == (2, True), refused.stderr
    assert not attempts(home)
    changed(own, ("weights, step = weights +", "weights, step = weights + __import__('os').getpid() * 1e-9 +"))
    found = study("verify", mine, home=home)
    assert (found.returncode, "DIFFERS in step" in found.stdout + found.stderr) == (1, True), (
        found.stdout + found.stderr
    )
    refused = study("run", mine, home=home)
    assert (refused.returncode, "found otherwise" in refused.stderr) == (2, True), refused.stderr
    nothing = succeeds("verify", mine, "-o", "trainer.resume=approximate", home=home)
    assert "nothing to verify" in nothing
    succeeds("run", mine, "-o", "trainer.resume=approximate", "--as", "honest", home=home)


@pytest.mark.parametrize("resume", ["approximate", "none"])
def test_what_is_not_exact_shares_finished_checkpoints_only(own: Path, tmp_path: Path, resume: str) -> None:
    home, mine = tmp_path / "home", own / "foreign.yaml"
    changed(own, ("resume: exact", f"resume: {resume}"), file="foreign.yaml")
    plan = json.loads(succeeds("plan", mine, "--json", home=home))
    assert (plan["naive_epochs"], plan["planned_epochs"]) == (8, 8), "one epoch of v is no part of two"
    succeeds("run", mine, home=home)
    told = [json.loads(path.read_text()) for path in home.glob("trajectories/*/attempts/*/segment.json")]
    assert {job["dynamics"]["trainer"]["until_step"] for job in told} == {20, 40, 80}
    same = json.loads(succeeds("plan", mine, "--json", home=home))
    assert same["missing"]["segments"] == 0


def test_the_files_are_part_of_the_key_and_how_it_is_started_is_not(own: Path, done: Path, tmp_path: Path) -> None:
    home, mine = Path(shutil.copytree(done, tmp_path / "home")), own / "foreign.yaml"

    def missing(*more: str) -> int:
        return int(json.loads(succeeds("plan", mine, "--json", *more, home=home))["missing"]["segments"])

    assert missing() == 0, "the same files elsewhere"
    assert missing("-o", "trainer.launch=[nice]", "-o", "trainer.grace_s=5", "--as", "nice") == 0
    assert missing("-o", "trainer.options.rate=0.06", "--as", "faster") == 4
    assert missing("-o", "trainer.version=2", "--as", "two") == 4
    changed(own, ("import numpy as np", "import numpy as np  # and nothing else"))
    assert missing() == 4
    why = succeeds("why", mine, home=home)
    assert "trainer.command" in why, why


# A pause before every step, as long as the way of starting says, which is no part of the key.
SLEEP = "__import__('time').sleep(float(__import__('os').environ.get('PAUSE', 0)))"
PAUSE = ("        towards =", f"        {SLEEP}\n        towards =")
SLOWLY = ("-o", "trainer.launch=[env, PAUSE=0.1]")


@pytest.mark.kill
def test_killed_it_ends_as_undisturbed_and_leaves_no_process(own: Path, done: Path, tmp_path: Path) -> None:
    home, mine = tmp_path / "home", own / "foreign.yaml"
    shutil.copytree(done / "verified", home / "verified")
    changed(own, PAUSE)
    succeeds("verify", mine, "--first", "2", "--second", "2", home=home)
    slow = (*SLOWLY, "-o", "checkpoint_every_epochs=1", "--as", "x")
    command = Command("run", mine, *slow, "--workers", "1", home=home)
    assert wait_for(lambda: any(_programs(command)))
    (worker,) = command.workers()
    (program, *_) = _programs(command)
    worker.kill()
    assert wait_for(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE, 10)
    status, output = command.wait()
    assert status == 0, output
    assert len(unfinished(home)) == 1
    weights = {Path(path).parts[-4]: content for path, content in published(home).items()}
    wanted = {Path(path).parts[-4]: content for path, content in published(done).items()}
    assert weights["000000020"] == wanted["000000020"]
    assert sorted(published(home).values()) == sorted(published(done).values())


def _programs(command: Command) -> list[psutil.Process]:
    found = []
    for process in command.alive():
        try:
            if "--segment" in process.cmdline() and "tether.py" not in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_ctrl_c_lets_it_save_and_running_again_goes_on(own: Path, done: Path, tmp_path: Path) -> None:
    home, mine = tmp_path / "home", own / "foreign.yaml"
    changed(own, PAUSE)
    succeeds("verify", mine, "--first", "2", "--second", "2", home=home)
    command = Command("run", mine, *SLOWLY, "--as", "slow", "--workers", "1", home=home)
    assert wait_for(lambda: any(home.glob("trajectories/*/attempts/*/staged-program/metrics.jsonl")))
    os.killpg(command.process.pid, signal.SIGINT)
    status, output = command.wait()
    assert (status, "stopped; what was trained is saved" in output) == (130, True), output
    command.assert_gone()
    (done_file,) = [json.loads(path.read_text()) for path in home.glob("trajectories/*/attempts/*/DONE.json")]
    assert done_file["status"] == "preempted"
    assert done_file["stop_step"] >= 10
    succeeds("run", mine, home=home)
    begun = [json.loads(path.read_text())["start_step"] for path in home.glob("trajectories/*/attempts/*/DONE.json")]
    assert done_file["stop_step"] in begun, "it went on where it was stopped"
    weights = published(home).values()
    assert set(published(done).values()) <= set(weights)


def test_a_damaged_or_foreign_checkpoint_is_never_handed_on(own: Path, done: Path, tmp_path: Path) -> None:
    home, mine = Path(shutil.copytree(done, tmp_path / "home")), own / "foreign.yaml"
    for path in home.glob("trajectories/*/checkpoints/000000020/state/deep/weights.npy"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    for path in home.glob("trajectories/*"):
        if (path / "checkpoints" / "000000080").is_dir() and not (path / "checkpoints" / "000000020").is_dir():
            shutil.rmtree(path)
    (home / "store.sqlite").unlink()
    failed = study("run", mine, home=home)
    assert (failed.returncode, "its sha256 is not the manifest's" in failed.stdout + failed.stderr) == (1, True)


CHECKS = {
    "no placeholder": (', "{segment}"]', "]", "has '{segment}'", 11),
    "no such file": ("./train.py", "./trian.py", "there is no such file", 12),
    "no promise": ("  resume: exact\n", "", "trainer.resume", 11),
    "a metric of the network": ("{name: frechet, features: pixel}", "v_error", "asks the network itself", 29),
    "no sampler": ('  sampler: ["{python}", ./train.py, --request, "{request}"]\n', "", "has no 'sampler'", 28),
}


@pytest.mark.parametrize("wrong", CHECKS)
def test_what_is_wrong_in_the_study_is_said_at_its_line(own: Path, wrong: str) -> None:
    old, new, said, line = CHECKS[wrong]
    changed(own, (old, new), file="foreign.yaml")
    found = study("check", own / "foreign.yaml")
    assert found.returncode == 2, found.stdout
    assert re.search(rf"foreign.yaml:{line}: .*{re.escape(said)}", found.stderr), found.stderr


FIGURE = 'figure: {kind: curves, colour_by: v_epochs, colour_label: "epochs of v", stage: u_finetune}'


def test_arms_of_different_samplers_and_what_an_attribute_cannot_give(own: Path, tmp_path: Path) -> None:
    """Who draws the samples is part of the key; a file that only an attribute names would be in none."""
    (own / "other.py").write_text((own / "train.py").read_text().replace("* 0.1", "* 10"))
    other = '{trainer: {sampler: ["{python}", ./other.py, --request, "{request}"]}}'
    changed(
        own,
        ('arm_name: "v{v_epochs}"', 'arm_name: "{how}"'),
        ("{v_epochs: [1, 2], u_epochs: [3, 2]}", "{how: [near, far], v_epochs: 1, u_epochs: 0}"),
        ("resume: exact", "resume: approximate"),
        (FIGURE, f"settings: {{how: {{near: {{}}, far: {other}}}}}"),
        ("seeds: [0]", "seeds: [0, 1]"),
        file="foreign.yaml",
    )
    succeeds("run", own / "foreign.yaml", home=tmp_path / "home")
    rows = [row.split(",") for row in succeeds("results", "--study", "foreign", home=tmp_path / "home").splitlines()]
    values = {(row[5], row[7]): float(row[16]) for row in rows if row[12] == "frechet_pixel" and row[10] == "1.0"}
    assert len(values) == 4
    assert all(values["far", seed] > 10 * values["near", seed] for seed in ("0", "1"))
    changed(
        own,
        ('["{python}", ./train.py, --segment', '["{python}", $how, --segment'),
        ("near: {}", "./train.py: {}"),
        ("[near, far]", "[./train.py, far]"),
        file="foreign.yaml",
    )
    found = study("check", own / "foreign.yaml")
    assert (found.returncode, "a file must stand in the command itself" in found.stderr) == (2, True), found.stderr


def test_a_search_verifies_what_it_draws(own: Path, tmp_path: Path) -> None:
    space = "base: {v_epochs: 1, u_epochs: 1}, space: {rate: {low: 0.01, high: 0.1}}"
    changed(
        own,
        ('arm_name: "v{v_epochs}"', 'arm_name: "start"'),
        ("arms: {v_epochs: [1, 2], u_epochs: [3, 2]}", "arms: {rate: [0.05], v_epochs: 1, u_epochs: 1}"),
        ("options: {rate: 0.05}", "options: {rate: $rate}"),
        (FIGURE, f"sweep: {{arm_name: 'r{{rate:.3f}}', {space}}}"),
        ("samples: 100, every_epochs: 2", "samples: 100, every_epochs: 1"),
        file="foreign.yaml",
    )
    home = tmp_path / "home"
    search = ("sweep", own / "foreign.yaml", "--search", "random", "--samples", "2", "--as", "found")
    said = study(*search, home=home)
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(list((home / "verified").glob("*.json"))) == 2 * 3, "two stages each of the start and of two points"


def test_a_network_inside_a_trainer_needs_one(tmp_path: Path) -> None:
    found = study(
        "plan", "obs_v_then_u", "--scale", "smoke", "-o", "dynamics.network=program", "--as", "x", home=tmp_path
    )
    assert (found.returncode, "say which one (trainer:" in found.stderr) == (2, True), found.stderr


@pytest.mark.parametrize("resume", ["approximate", pytest.param("exact", marks=pytest.mark.stress)])
def test_the_example_of_the_documentation(resume: str, tmp_path: Path) -> None:
    """Each of its processes imports torch, and to verify takes six."""
    home, mine = tmp_path / "home", EXAMPLE / "foreign.yaml"
    short = ("panels.all.arms={v_epochs: [1], u_epochs: [0]}", "claims=[]", "figure=null", f"trainer.resume={resume}")
    overrides = [part for override in short for part in ("-o", override)]
    succeeds("verify", mine, *overrides, home=home)  # nothing, where nothing is promised
    succeeds("run", mine, *overrides, "--seeds", "0", "--as", "short", home=home)
    rows = succeeds("results", "--study", "foreign", "--as", "short", home=home).splitlines()
    assert sum(",frechet_pixel," in row for row in rows) == 2
    assert sum(",loss," in row for row in rows) == 1

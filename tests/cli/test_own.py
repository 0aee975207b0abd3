"""Components of your own, one of every kind, in a folder outside of the repository: docs/examples/own, copied."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.homes import Command, attempts, dump, environment, study, succeeds, tensors, unfinished, wait_for
from tests.sweeps.conformance import kill_worker

pytestmark = pytest.mark.slow  # whole commands that train

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own"
LONG = (
    *("-o", "panels.all.arms={power: [1]}", "-o", "claims=[]", "-o", "figure=null", "-o", "steps_per_epoch=100"),
    *("-o", "checkpoint_every_epochs=1", "--seeds", "0", "--as", "long"),
)
KINDS = ("Plain", "Rings", "Squared", "Power", "Momentum", "CosineGap", "MeanTime", "RadiusError")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The example's folder, as the user's."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "own"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the example was run. To be copied, never changed."""
    home = tmp_path_factory.mktemp("done") / "home"
    succeeds("run", EXAMPLE / "mine.yaml", "--seeds", "0-1", home=home)
    return home


def test_every_kind_runs_and_is_reported(own: Path, done: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(done, tmp_path / "home"))
    (log, *_) = sorted(home.glob("trajectories/*/attempts/*/metrics.jsonl"))
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert any("mean_t" in line.get("values", {}) for line in logged), "by the observer"
    jobs = [json.loads(path.read_text()) for path in home.glob("trajectories/*/attempts/*/segment.json")]
    names = {name.partition("@")[0] for job in jobs for name in _names(job)}
    assert names >= set(KINDS)
    shutil.rmtree(own)  # the record has all that reports need
    claims = succeeds("claims", "mine", home=home)
    assert "Effect (RadiusError): power2 − power0.5" in claims
    assert "all arms; the user's own test MostSeeds, share 0.6" in claims
    out = tmp_path / "report"
    succeeds("report", "mine", "--out", out, home=home)
    assert (out / "mine_cpu.png").stat().st_size > 10_000
    rows = succeeds("results", "--study", "mine", home=home).splitlines()
    assert sum(",RadiusError," in row for row in rows) == 2 * 3 * 5


def _names(value: object) -> set[str]:
    if isinstance(value, dict):
        return {str(value["name"])} if "name" in value else set().union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def test_killed_it_resumes_bitwise_and_its_state_is_in_the_checkpoints(own: Path, tmp_path: Path) -> None:
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    succeeds("run", own / "mine.yaml", *LONG, home=quiet)
    command = Command("run", own / "mine.yaml", *LONG, "--workers", "1", home=killed)
    assert wait_for(lambda: any(killed.glob("trajectories/*/checkpoints/0000003*")))
    (running,) = [one for one in unfinished(killed) if kill_worker(one)] or [None]
    status, output = command.wait()
    assert status == 0, output
    assert running is None or len(attempts(killed)) > len(attempts(quiet))
    assert tensors(quiet).items() <= tensors(killed).items()
    assert dump(quiet) == dump(killed)
    assert any("transform.CosineGap@" in path for path in tensors(quiet))
    verified = succeeds("verify", own / "mine.yaml", "--scale", "cpu", home=tmp_path / "none")
    assert "bitwise" in verified or "equal" in verified, verified


def test_another_text_is_another_component(own: Path, done: Path, tmp_path: Path) -> None:
    home, plan = tmp_path / "home", ("plan", own / "mine.yaml", "--json")
    shutil.copytree(done, home)
    assert json.loads(succeeds(*plan, "--seeds", "0", home=home))["missing"]["cost"]["steps"] == 0
    before = (own / "my.py").read_text()
    (own / "my.py").write_text(before.replace("torch.cos(torch.pi / 2 *", "torch.cos(torch.pi / 3 *"))
    assert json.loads(succeeds(*plan, "--seeds", "0", home=home))["missing"]["cost"]["steps"] > 0
    why = succeeds("why", own / "mine.yaml", "--seeds", "0", home=home)
    assert "transforms.CosineGap.source" in why, why
    (own / "my.py").write_text(before)
    assert json.loads(succeeds(*plan, "--seeds", "0", home=home))["missing"]["cost"]["steps"] == 0


def test_planning_and_reporting_load_no_torch(own: Path) -> None:
    code = (
        "import sys\n"
        "from studies.loader import load_source, resolve\n"
        "from sweeps.session import open_session\n"
        "from sweeps.plan import Inventory\n"
        f"session = open_session([resolve(load_source({str(own / 'mine.yaml')!r}), 'cpu')])\n"
        "session.jobs(Inventory())\n"
        "print(sorted({'torch', 'ray', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_job_needs_no_file_of_the_user(own: Path, tmp_path: Path) -> None:
    """The files may be gone, or on another machine, when a job is done."""
    code = (
        "import sys\n"
        "from studies.loader import load_source, resolve\n"
        "from sweeps.session import open_session\n"
        "from sweeps.plan import Inventory\n"
        f"session = open_session([resolve(load_source({str(own / 'mine.yaml')!r}), 'cpu')])\n"
        "print(session.jobs(Inventory())[0].model_dump_json())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (tmp_path / "job.json").write_text(done.stdout)
    shutil.rmtree(own)
    ranked = [sys.executable, "-m", "sweeps.ranked", tmp_path / "home", tmp_path / "job.json"]
    ended = subprocess.run(ranked, capture_output=True, text=True, env=environment(), check=False)
    assert (ended.returncode, ended.stdout.startswith("done")) == (0, True), ended.stdout + ended.stderr


def test_an_entry_point_of_an_installed_package(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    info = site / "gaps_of_mine-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(own / "my.py", site / "gaps_of_mine.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gaps-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[meanflow_study.components]\ncosine = gaps_of_mine:CosineGap\nnothing = gaps_of_mine:nothing\n"
    )
    text = (own / "mine.yaml").read_text()
    monkeypatch.syspath_prepend(str(site))
    (own / "mine.yaml").write_text(text.replace("./my.py:CosineGap", "gaps-of-mine.cosine"))
    done = study("run", own / "mine.yaml", "--seeds", "0", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    jobs = [json.loads(path.read_text()) for path in tmp_path.glob("home/trajectories/*/attempts/*/segment.json")]
    assert {"gaps-of-mine.cosine"} <= {name for job in jobs for name in _names(job)}
    for wrong, said in (
        ("gaps-of-mine.sine", "no installed package has the component 'gaps-of-mine.sine'"),
        ("gaps-of-mine.nothing", "cannot be imported"),
    ):
        (own / "mine.yaml").write_text(text.replace("./my.py:CosineGap", wrong))
        done = study("plan", own / "mine.yaml", home=tmp_path / "home")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("command", "edit", "said"),
    [
        ("claims", ('"verdict": "supported"', '"verdict": "maybe"'), "'MostSeeds' returns no finding: verdict"),
        ("claims", ('"effect": float(', '"effect": float("nan") * float('), "its numbers are not finite"),
        ("claims", ("better = float(", "better = nothing("), "'MostSeeds' fails: NameError"),
        ("report", ('axes.set_xlabel("power")', "axes.set_nothing()"), "'EveryEnd' fails: AttributeError"),
    ],
)
def test_views_that_fail_are_named(
    command: str, edit: tuple[str, str], said: str, done: Path, own: Path, tmp_path: Path
) -> None:
    text = (own / "views.py").read_text()
    assert edit[0] in text
    (own / "views.py").write_text(text.replace('"supported" if better > self.share else "contradicted"', '"supported"'))
    (own / "views.py").write_text((own / "views.py").read_text().replace(*edit))
    home = shutil.copytree(done, tmp_path / "home")
    succeeds("run", own / "mine.yaml", "--seeds", "0-1", home=home)  # nothing to train: the views are recorded
    refused = study(command, own / "mine.yaml", home=home)
    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr


FAULTS: dict[str, tuple[str, str, str]] = {
    # name: (a part of mine.yaml, what stands there instead, words of the message)
    "no file": ("./my.py:CosineGap", "./your.py:CosineGap", "there is no such file"),
    "no class": ("./my.py:CosineGap", "./my.py:SineGap", "my.py:SineGap is no class of parameters"),
    "no component": ("./my.py:CosineGap", "./bad.py:Bare", "put @component(kind, version=1) above the class"),
    "no implementation": ("./my.py:CosineGap", "./bad.py:Unbuilt", "has no method build(self, context)"),
    "not a class": ("./my.py:CosineGap", "./bad.py:function", "is no class of parameters"),
    "no reference": ("./my.py:CosineGap", "my_CosineGap:x", "neither a class in a file"),
    "syntax": ("./my.py:CosineGap", "./broken.py:X", "broken.py:2: SyntaxError"),
    "raises": ("./my.py:CosineGap", "./raises.py:X", "raises.py:3: ZeroDivisionError"),
    "another kind": (
        "{use: ./my.py:CosineGap, power: $power}",
        "{use: ./my.py:Plain}",
        "'Plain' is a network, not a transform",
    ),
    "parameter": ("power: $power}", "strength: 1}", "transform 'CosineGap': strength"),
    "value": ("power: $power}", "power: -1}", "transform 'CosineGap': power"),
    "name and use": ("{use: ./my.py:CosineGap,", "{name: dtd, use: ./my.py:CosineGap,", "either a 'name' or a 'use'"),
    "no entry point": ("./my.py:CosineGap", "./my.py", "neither a class in a file"),
    "letters": ("./my.py:CosineGap", "./my.py:Ünet", "neither a class in a file"),
    "twice": (
        "[{use: ./my.py:CosineGap, power: $power}]",
        "[{use: ./my.py:CosineGap}, {use: ./again.py:CosineGap}]",
        "a transform may stand only once",
    ),
    "called alike": (
        "{metric: {name: frechet, features: pixel}, samples: 200, every_epochs: 2}",
        "{metric: {use: ./my.py:RadiusError, radius: 2}, samples: 200, every_epochs: 2}",
        "two metrics are called 'RadiusError'",
    ),
    "no text": ("{use: ./my.py:CosineGap,", "{use: 3,", "write ./my.py:MyClass"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_said_with_its_line(name: str, own: Path) -> None:
    part, instead, said = FAULTS[name]
    (own / "bad.py").write_text(
        "from meanflow_core.registry import Params, component\n"
        "class Bare(Params): ...\n"
        "@component('transform')\nclass Unbuilt(Params): ...\n"
        "def function(): ...\n"
    )
    (own / "again.py").write_text((own / "my.py").read_text() + "# another file\n")
    (own / "broken.py").write_text("x = 1\nclass X(:\n")
    (own / "raises.py").write_text("def f():\n\n    1 / 0\nf()\n")
    text = (own / "mine.yaml").read_text().replace(part, instead)
    (own / "mine.yaml").write_text(text)
    line = next(i for i, one in enumerate(text.splitlines(), 1) if instead in one)
    done = study("run", "mine.yaml", cwd=own)
    assert done.returncode == 2
    assert f"mine.yaml:{line}" in done.stderr and said in done.stderr, done.stderr
    assert not (own / "study_home").exists()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ((", uses_horizon=True)", ")"), "asked for the horizon T but is not registered with uses_horizon=True"),
        (("horizon = self.power, context.horizon", "horizon = self.power, self.nothing"), "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_found_before_training(edit: tuple[str, str], said: str, own: Path) -> None:
    text = (own / "my.py").read_text()
    assert edit[0] in text
    (own / "my.py").write_text(text.replace(*edit))
    done = study("run", "mine.yaml", cwd=own)
    assert (done.returncode, said in done.stderr) == (2, True), done.stdout + done.stderr


def test_a_method_that_raises_is_told_with_its_line(own: Path) -> None:
    text = (own / "my.py").read_text()
    (own / "my.py").write_text(text.replace("        dim = 1\n", "        dim = {}[0]\n"))
    line = next(i for i, one in enumerate((own / "my.py").read_text().splitlines(), 1) if "dim = {}[0]" in one)
    done = study("plan", own / "mine.yaml")
    assert (done.returncode, f"my.py:{line}: Plain fails: KeyError" in done.stderr) == (2, True), done.stderr


def test_the_horizon_reaches_what_may_read_it(own: Path, tmp_path: Path) -> None:
    """A learning rate that falls to 0 at T; kinds to which T is not given cannot ask for it."""
    text, plain, reading = (own / "my.py").read_text(), '@component("optimiser", version=1)', "@component('optimiser')"
    falls = text.replace(plain, '@component("optimiser", version=1, uses_horizon=True)')
    falls = falls.replace("p.sub_(params.lr * self.m[name])", "p.sub_(params.lr * (1 - step / T) * self.m[name])")
    falls = falls.replace("params, named = self, dict(", "params, T, named = self, context.horizon, dict(")
    (own / "my.py").write_text(falls)
    succeeds("run", own / "mine.yaml", "--seeds", "0", home=tmp_path / "home")
    (own / "my.py").write_text(falls.replace('@component("optimiser", version=1, uses_horizon=True)', reading))
    done = study("run", own / "mine.yaml", "--seeds", "0", home=tmp_path / "other")
    assert (done.returncode, "'Momentum' asked for the horizon T" in done.stderr) == (2, True), done.stderr
    observer = '@component("observer", version=1)'
    (own / "my.py").write_text(text.replace(observer, "@component('observer', uses_horizon=True)"))
    done = study("plan", own / "mine.yaml")
    assert (done.returncode, "a observer cannot use the horizon T" in done.stderr) == (2, True), done.stderr


def test_sources_are_not_written(own: Path) -> None:
    done = study("plan", own / "mine.yaml", "-o", "sources=foo", "--as", "x")
    assert (done.returncode, "leave 'sources' out" in done.stderr) == (2, True), done.stderr


def test_a_new_study_on_top_names_the_files(own: Path) -> None:
    succeeds("new", "more", "--from", "./mine.yaml", cwd=own)
    assert f"use: {own / 'my.py'}:CosineGap" in (own / "more.yaml").read_text()
    succeeds("check", "more.yaml", cwd=own)


def test_an_override_names_one_too(own: Path) -> None:
    changed = ("-o", "dynamics.optimiser.use=own/my.py:Momentum", "-o", "dynamics.optimiser.lr=0.5", "--as", "fast")
    shown = succeeds("plan", "own/mine.yaml", *changed, "--json", cwd=own.parent)
    assert json.loads(shown)["missing"]["cost"]["steps"] > 0
    done = study("plan", "own/mine.yaml", "-o", "dynamics.optimiser.use=./nowhere.py:X", "--as", "x", cwd=own.parent)
    assert (done.returncode, "-o dynamics.optimiser.use: cannot read nowhere.py" in done.stderr) == (2, True)


def test_a_bundle_brings_its_code_only_where_it_is_trusted(done: Path, tmp_path: Path) -> None:
    home, bundle, there = Path(shutil.copytree(done, tmp_path / "home")), tmp_path / "mine.tar.gz", tmp_path / "there"
    succeeds("bundle", bundle, home=home)
    refused = study("db", "import", bundle, home=there)
    assert refused.returncode == 2 and not there.exists(), refused.stdout
    assert "my.py" in refused.stderr and "views.py" in refused.stderr and "--trust-code" in refused.stderr
    assert (EXAMPLE / "my.py").read_text() in succeeds("db", "import", bundle, "--show-code", home=there)
    assert not there.exists()
    succeeds("db", "import", bundle, "--trust-code", home=there)
    assert succeeds("claims", "mine", home=there) == succeeds("claims", "mine", home=home)
    succeeds("db", "import", bundle, home=there)  # it is known now


def repacked(bundle: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A bundle with some of its files changed, and a manifest that says so."""
    with tarfile.open(bundle) as packed:
        files = {m.name: packed.extractfile(m).read() for m in packed.getmembers()}  # type: ignore[union-attr]
    manifest = json.loads(files.pop("manifest.json"))
    files = {name: change(name, data) for name, data in files.items()}
    for entry in manifest["files"]:
        data = files[entry["path"]]
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    out = bundle.with_name(f"changed-{bundle.name}")
    with tarfile.open(out, "w:gz", format=tarfile.USTAR_FORMAT) as packed:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **files}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return out


def sources(file: str, text: str) -> dict[str, dict[str, str]]:
    return {hashlib.sha256(text.encode()).hexdigest()[:20]: {"file": file, "text": text}}


CRAFTED: dict[str, tuple[str, Callable[[dict[str, Any]], object], str, bool]] = {
    # what: (in which files, the change, what is said, whether it is refused even where code is trusted)
    "no mapping": ("run.json", lambda doc: doc["config"].update(sources=[1]), "its sources are no files", True),
    "another text under a known hash": (
        "run.json",
        lambda doc: [source.update(text="import os") for source in doc["config"]["sources"].values()],
        "is not the text that its hash names",
        True,
    ),
    "in a segment": ("segment.json", lambda doc: doc.update(sources=sources("seg.py", "1")), "seg.py", False),
    "hidden": (
        "run.json",
        lambda doc: doc["config"].update(sources=sources("\x1b[2J.py", "x\x1b[8m")),
        "\\x1b[2J.py",
        False,
    ),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_bundle_is_refused(name: str, done: Path, tmp_path: Path) -> None:
    bundle, there = tmp_path / "mine.tar.gz", tmp_path / "there"
    succeeds("bundle", bundle, home=Path(shutil.copytree(done, tmp_path / "home")))
    where, change, said, always = CRAFTED[name]

    def crafted(path: str, data: bytes) -> bytes:
        if not path.endswith(where):
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    changed = repacked(bundle, crafted)
    for trusted in ((), ("--trust-code",)) if always else ((),):
        refused = study("db", "import", changed, *trusted, home=there)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stdout + refused.stderr
        assert not there.exists()
    shown = study("db", "import", changed, "--show-code", home=there)
    assert shown.returncode == (2 if always else 0)
    assert "\x1b" not in shown.stdout + shown.stderr + refused.stderr

"""Bad input through the real command: one message that says what, where and what to do; exit status 2; no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from results.layout import Home
from results.owner import OwnerError
from studies.cli import running
from studies.cli.backends import BackendChoice
from studies.cli.choose import choose
from studies.cli.options import BackendName
from studies.cli.store import take_store
from tests.fresh import fresh_process
from tests.homes import MICRO, TINY, environment, study, study_process

BASE = TINY.read_text(encoding="utf-8")
MANY_POINTS = "space={" + ", ".join(f"{name}: {[*range(10)]}" for name in "abcdef") + "}"


def refused(*args: str | Path, cwd: Path, says: tuple[str, ...], status: int = 2) -> bool:
    """The command fails and says all of this on stderr. Returns: whether it leaves no file behind."""
    before = sorted(cwd.rglob("*"))
    done = study(*args, cwd=cwd)
    assert done.returncode == status, done.stdout + done.stderr
    for words in says:
        assert words in done.stderr, done.stderr
    return sorted(cwd.rglob("*")) == before


def edited(*pairs: tuple[str, str]) -> str:
    text = BASE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


FILES: dict[str, tuple[tuple[tuple[str, str], ...], str, tuple[str, ...]]] = {
    # name: (edits, a part of the line that the message must name, words of the message)
    "unknown key": ((("arm_name:", "arm_nmae:"),), "arm_nmae", ("unknown key (did you mean 'arm_name'?",)),
    "unknown key of a scale": (
        (("    primary: frechet_pixel", "    primry: x"),),
        "primry",
        ("unknown key (did you mean 'primary'?",),
    ),
    "unknown key of a claim": (
        (("    over: v_", "    overr: v_"),),
        "overr",
        ("claims.0.overr: unknown key", "'over'?"),
    ),
    "unknown key of a figure": (
        (("colour_by: v_", "color_by: v_"),),
        "figure:",
        ("figure.color_by: unknown key", "'colour_by'?"),
    ),
    "unknown kind of figure": ((("kind: curves", "kind: curve"),), "figure:", ("no kind 'curve'", "'curves'?")),
    "unknown key of a stage": (
        (("fm_ratio: 1.0", "fm_ration: 1.0"),),
        "fm_ration",
        ("unknown key (did you mean 'fm_ratio'?",),
    ),
    "duplicate key": ((("arm_name:", "title: again\narm_name:"),), "title: again", ("duplicate key", "once")),
    "not YAML": ((("panels:", "panels: ]"),), "panels: ]", ("not valid YAML",)),
    "wrong type": ((("steps_per_epoch: 10", "steps_per_epoch: ten"),), "ten", ("steps_per_epoch", "integer")),
    "unknown network": (
        (("name: mlp", "name: mlpp"),),
        "mlpp",
        ("unknown network 'mlpp' (did you mean 'mlp'?", "dit, mlp"),
    ),
    "unknown metric": ((("name: frechet,", "name: frechett,"),), "frechett", ("unknown metric", "available:")),
    "fractional rows": ((("fm_ratio: 1.0", "fm_ratio: 0.3"),), "fm_ratio: 0.3", ("4.8 rows", "0.3125")),
    "lists of unequal length": ((("u_epochs: 4}", "u_epochs: [1, 2]}"),), "  left:", ("equally long",)),
    "nested too deeply": ((("arm_name:", "x: " + "[" * 3000 + "\narm_name:"),), "", ("not valid YAML",)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    edits, part, says = FILES[name]
    text = edited(*edits)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    where = f"mine.yaml:{line_of(text, part)}" if part else "mine.yaml"
    assert refused("run", "mine.yaml", cwd=tmp_path, says=(where, *says))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"mine.yaml": "- a\n"}, ("mine.yaml", "mapping")),
        ({"mine.yaml": ""}, ("mine.yaml", "mapping")),
        ({"mine.yaml": "study: mine\n"}, ("mine.yaml", "needs 'scales'")),
        ({"mine.yaml": "extends: ./a.yaml\nstudy: b\n", "a.yaml": "extends: mine.yaml\nstudy: a\n"}, ("circle",)),
        ({"mine.yaml": "extends: obs_v_then\nstudy: b\n"}, ("did you mean 'obs_v_then_u'",)),
        ({"mine.yaml": "extends: ./gone.yaml\nstudy: b\n"}, ("there is no file gone.yaml",)),
        ({"mine.yaml": "extends: obs_v_then_u\n"}, ("a name of its own",)),
        ({"mine.yaml": "extends: obs_v_then_u\nstudy: obs_v_then_u\n"}, ("name of a built-in", "another")),
        ({"mine.yaml": BASE.replace("v{v_epochs}", "v{epochs}")}, ("arm_name", "attributes: v_epochs")),
        ({"mine.yaml": BASE.replace('"v{v_epochs}"', '"same"')}, ("two arms", "'same'")),
        ({"mine.yaml": BASE.replace("$u_epochs", "$w_epochs")}, ("$w_epochs", "v_epochs, u_epochs")),
    ],
)
def test_a_file_that_is_no_study_is_refused(files: dict[str, str], says: tuple[str, ...], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert refused("run", "mine.yaml", cwd=tmp_path, says=says)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("run", "obs_v_then"), ("unknown study 'obs_v_then'", "did you mean 'obs_v_then_u'")),
        (("run", "./gone.yaml"), ("no file gone.yaml",)),
        (("run", TINY, "--scale", "huge"), ("no scale 'huge' (available: cpu, long)",)),
        (("run", TINY, "--scale", "CPU"), ("no scale 'CPU' (did you mean 'cpu'?",)),
        (("run", TINY, "--backend", "loca"), ("'loca' is not one of", "Did you mean 'local'?")),
        (("run", TINY, "--workers", "many"), ("'--workers': Input should be a valid integer",)),
        (("run", TINY, "--cluster", "gpu_exmple", "--backend", "slurm"), ("did you mean 'gpu_example'?",)),
        (("run", TINY, "-o", "primary=frechet_pixl", "--as", "x"), ("did you mean 'frechet_pixel'?",)),
        (("run", TINY, "-o", "dynamics.data=digts", "--as", "x"), ("did you mean 'digits'?",)),
        (("plan", TINY, "-o", "panels.left.arms.v_epochs=[999999999]", "--as", "x"), ("more than 1,000,000 epochs",)),
        (
            ("plan", "k_schedule", "-o", MANY_POINTS, "--as", "x"),
            ("100,000 points",),
        ),
        (("plan", TINY, "-o", "steps_per_epoch=true", "--as", "x"), ("-o steps_per_epoch", "true is no number")),
        (
            ("plan", TINY, "-o", "dynamics.optimiser.lr=true", "--as", "x"),
            ("-o dynamics.optimiser.lr", "true is no number"),
        ),
        (("plan", TINY, "-o", "panels.left.arms.v_epochs=[0, 2.5]", "--as", "x"), ("$v_epochs is 2.5",)),
        (("plan", TINY, "-o", "threads=100000", "--as", "x"), ("-o threads", "1024")),
        (("plan", TINY, "-o", "settings.v_epochs.2.fm_ratio=7", "--as", "x"), ("what '0' stands for (it has: 2)",)),
        (("plan", TINY, "--seeds", "4294967296"), ("from 0 to 4294967295",)),
        (("sample", "tiny", "--nfe", "99999999999"), ("from 1 to 10000",)),
        (("sample", "tiny", "--seed", "-3"), ("'--seed'",)),
        (("why", f"{TINY}/lft"), ("did you mean",)),
        (("status", "--status", "faild"), ("--status faild", "did you mean 'failed'?")),
        (("run", TINY, "-o", "steps_per_epoch=7"), ("--as NAME",)),
        (("run", TINY, "--as", "x"), ("--as x", "nothing to name")),
        (("run", TINY, "-o", "steps_per_epoch", "--as", "x"), ("key=value",)),
        (("run", TINY, "-o", "steps_per_epoch=ten", "--as", "x"), ("-o steps_per_epoch", "integer")),
        (("run", TINY, "-o", "a.b=1", "--as", "x"), ("-o a.b", "unknown key")),
        (("run", TINY, "-o", "measure.9.nfe=2", "--as", "x"), ("-o measure.9.nfe", "1 entries")),
        (("run", TINY, "-o", "measure.².nfe=2", "--as", "x"), ("-o measure.²", "not one of")),
        (("run", TINY, "-o", "dynamics.optimiser.lr=fast", "--as", "x"), ("-o dynamics.optimiser.lr", "number")),
        (("run", TINY, "-o", "dynamics.network.widht=3", "--as", "x"), ("-o dynamics.network.widht", "width")),
        (("run", TINY, "-o", "seeds.0=3", "--as", "x"), ("use the option",)),
        (("run", TINY, "-o", "divergence=.inf", "--as", "x"), ("-o divergence", "finite number")),
        (("run", TINY, "-o", "threads=2", "--as", "a/b"), ("letters, digits",)),
        (("run", TINY, "--seeds", "1-0"), ("--seeds 1-0", "empty")),
        (("run", TINY, "--seeds", "0,0"), ("stands twice",)),
        (("run", TINY, "--seeds", "zero"), ("0-5 or 0,3,7",)),
        (("run", TINY, TINY), ("named twice",)),
        (("run", TINY, "--workers", "0"), ("--workers",)),
        (("run", "obs_v_then_u", "--scale", "paper"), ("cannot run at scale paper", "STUDY_DATA")),
        (("verify", "obs_v_then_u", "--scale", "paper"), ("cannot run at scale paper", "STUDY_DATA")),
        (("report", "--figure", "99"), ("figure 99", "available: 1, 2")),
        (("report",), ("--figure N",)),
        (("report", TINY), ("nothing is stored", "run a study first")),
        (("claims", TINY), ("nothing is stored", "run a study first")),
        (("results", "--study", "nope"), ("unknown study 'nope'",)),
        (("results", "--study", TINY), ("nothing is stored",)),
        (("status",), ("nothing is stored",)),
        (("db", "dump"), ("nothing is stored",)),
        (("db", "rebuild"), ("nothing is stored",)),
    ],
    ids=lambda value: " ".join(str(getattr(v, "name", v)) for v in value) if isinstance(value, tuple) else None,
)
def test_a_bad_command_line_is_refused(args: tuple[str, ...], says: tuple[str, ...], tmp_path: Path) -> None:
    assert refused(*args, cwd=tmp_path, says=says)


def test_questions_about_what_was_never_run(copy: Path, tmp_path: Path) -> None:
    at = ("--home", copy)
    work = tmp_path / "work"
    work.mkdir()
    assert refused(
        "report", TINY, "--scale", "long", *at, cwd=work, says=("no run of 'tiny' at scale 'long'", "study run")
    )
    assert refused("claims", TINY, "--as", "nope", *at, cwd=work, says=("variant 'nope'", "study run"))
    assert refused("results", "--study", "obs_v_then_u", *at, cwd=work, says=("nothing of 'obs_v_then_u'", "study run"))
    assert refused("results", "--study", TINY, "--format", "parquet", *at, cwd=work, says=("--out",))
    (work / "file").touch()
    assert refused("report", TINY, "--out", "file", *at, cwd=work, says=("file, not a folder",))


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_refused_leaves_no_home(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since the store is another home's: only then is it known that nothing can be recorded."""
    monkeypatch.setenv("STUDY_STORE", f"sqlite:///{tmp_path / 'shared.sqlite'}")
    monkeypatch.setattr(running, "ready", lambda *_: None)
    take_store(Home(tmp_path / "first"))
    second = tmp_path / "second"
    if there:
        second.mkdir()
    chosen, words = choose([str(MICRO)], None, "0", [], None)
    with fresh_process(), pytest.raises(OwnerError, match="another home"):
        running.execute(chosen, words, [str(MICRO)], None, BackendChoice(BackendName.INLINE), second)
    assert [path.name for path in tmp_path.glob("second*/**")] == (["second"] if there else [])


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_a_home_that_is_a_file(home: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    assert refused("run", TINY, "--home", home, cwd=tmp_path, says=("file",))
    assert refused("status", "--home", home, cwd=tmp_path, says=("nothing is stored",))
    assert (tmp_path / "file").read_text() == "precious"


def test_a_file_called_study_home_where_the_home_would_be(tmp_path: Path) -> None:
    (tmp_path / "study_home").write_text("precious")
    assert refused("run", TINY, cwd=tmp_path, says=("study_home",))


def test_a_read_only_home(tiny: Path, tmpfs: Callable[[str], Path], tmp_path: Path) -> None:
    assert refused("run", TINY, "--home", tmpfs("ro"), cwd=tmp_path, says=("writable",))


@pytest.mark.slow
def test_a_hostile_working_directory_changes_nothing(tmp_path: Path) -> None:
    """Of the command, nor of its workers, which are started anew, by another way."""
    for name in ("torch.py", "random.py", "signal.py", "pandas.py", "studies.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    for name in ("results", "sweeps", "meanflow_core"):
        (tmp_path / name).mkdir()
    done = study_process("run", MICRO, "--workers", "1", home=tmp_path / "home", cwd=tmp_path)
    assert "done." in done.stdout, done.stdout + done.stderr
    assert "micro" in study_process("status", home=tmp_path / "home", cwd=tmp_path).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "LANG": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"HOME": "", "TERM": "dumb", "COLUMNS": "1"},
    ],
)
def test_poor_environments(locale: dict[str, str], copy: Path, tmp_path: Path) -> None:
    env = {**environment(), **locale}
    if "HOME" in locale:
        del env["HOME"]
    for args in (("plan", "obs_v_then_u"), ("claims", TINY)):
        done = study_process(*args, home=copy, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_figures_need_no_backend_that_shows_them(copy: Path, tmp_path: Path) -> None:
    done = study_process("report", TINY, home=copy, env=environment(MPLBACKEND="nonsense"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

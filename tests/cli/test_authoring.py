"""study new and study check: a study of one's own, from its first line to its first run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from studies.loader import builtin_names, load_source, resolve
from studies.scaffold import scaffold
from sweeps.session import open_session
from tests.homes import TINY, study, succeeds


def uncommented(text: str) -> str:
    """A new study file with every example in it said."""
    head, *sections = text.split("\n\n")[1:]
    shown = []
    for section in sections:
        lines = section.splitlines()
        first = next(i for i, line in enumerate(lines) if re.match(r"# [a-z_]+:", line))
        shown += [line.removeprefix("# ") for line in lines[first:]]
    return "\n".join([head, *shown, ""])


@pytest.mark.parametrize("name", builtin_names())
def test_a_new_study_is_the_one_it_comes_from_and_its_examples_are_valid(name: str, tmp_path: Path) -> None:
    text = scaffold("mine", load_source(name), name)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    source, origin = load_source(str(path)), load_source(name)
    assert source.scales == origin.scales
    for scale in source.scales:
        mine, theirs = resolve(source, scale), resolve(origin, scale)
        differs = {key for key, value in mine if value != getattr(theirs, key)}
        assert differs <= {"study", "title", "heading", "as_in_paper", "paper_values"}
    path.write_text(uncommented(text))
    said = load_source(str(path))
    assert {"panels", "scales", "title"} < said.files[0].data.keys()
    for scale in said.scales:
        arms = open_session([resolve(said, scale, (), [0])]).arms  # of one seed: others have the same arms
        wanted = {(arm.panel, arm.name) for arm in open_session([resolve(origin, scale, (), [0])]).arms}
        assert {(arm.panel, arm.name) for arm in arms} == wanted


def test_from_its_first_line_to_its_first_run(tmp_path: Path) -> None:
    assert "wrote mine.yaml" in succeeds("new", "mine", "--from", TINY, cwd=tmp_path)
    path = tmp_path / "mine.yaml"
    assert f"{TINY.name}" in path.read_text().split("extends: ")[1].splitlines()[0]
    shown = succeeds("check", "./mine.yaml", cwd=tmp_path)
    assert re.search(r"cpu\s+│ 7\s+│ 1\s+│", shown), shown
    path.write_text(path.read_text() + "panels: {right: null}\ncontrols: {joint: null}\n")
    (checked,) = json.loads(succeeds("check", "./mine.yaml", "--json", cwd=tmp_path))
    by_scale = {scale["scale"]: scale["plan"] for scale in checked["scales"]}
    assert (by_scale["cpu"]["arms"], by_scale["cpu"]["naive_epochs"]) == (3, 18)
    succeeds("run", "./mine.yaml", "--scale", "cpu", home=tmp_path / "home", cwd=tmp_path)
    assert "mine" in succeeds("status", home=tmp_path / "home")


def test_everything_that_is_wrong_is_said_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    lines = [
        "study: bad",
        f"extends: {TINY}",
        "claims:",
        "  - {id: a, text: x, where: y, panel: nosuch, test: trend, over: v_epochs, direction: decreasing}",
        "  - {id: a, text: x, where: y, panel: left, stage: no, test: trend, over: v_epochs, direction: decreasing}",
        "  - {id: c, text: x, where: y, panel: left, test: trend, over: epochs_of_v, direction: decreasing}",
        "controls: {joint: {panel: middle}}",
        "scales: {long: {primary: unheard_of, seeds: [3, 3]}}",
    ]
    path.write_text("\n".join(lines) + "\n")
    done = study("check", path)
    assert done.returncode == 2
    said = [re.sub(r" \((did you mean|available:).*", "", line) for line in done.stderr.splitlines()]
    assert sorted(line.replace(str(path), "bad") for line in said) == [
        "bad:4: claims.0.panel: there is no panel 'nosuch'",
        "bad:5: claims.1.id: two claims are called 'a'  [cpu]",
        "bad:5: claims.1.stage: there is no stage 'no'",
        "bad:6: claims.2.over: arms of 'left' have no attribute 'epochs_of_v'",
        "bad:7: controls.joint.panel: there is no panel 'middle'",
        "bad:8: seeds: seeds must differ from each other  [long]",
    ]
    path.write_text("\n".join(lines).replace(", seeds: [3, 3]", "") + "\n")
    said = study("check", path).stderr.splitlines()
    assert len(said) == 6 and sum("[cpu, long]" in line for line in said) == 5
    assert sum(f"{path}:8: primary: there is no measured metric 'unheard_of'" in line for line in said) == 1
    path.write_text("study: bad\nextends: k_schedule\ndynamcis: {}\nscales: {cpu: {seeds: [0, 0]}}\n")
    done = study("check", path, "--json")
    assert done.returncode == 2
    (checked,) = json.loads(done.stdout)
    errors = {scale["scale"]: scale["errors"] for scale in checked["scales"]}
    wanted = f"{path}:3: dynamcis: unknown key (did you mean 'dynamics'? available: "
    assert all(any(error.startswith(wanted) for error in found) for found in errors.values())
    assert len(errors["cpu"]) == 2, "the seeds too"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("new", "My Study", "--from", "k_schedule"), "'My Study' is no name of a study"),
        (("new", "k_schedule", "--from", "k_schedule"), "'k_schedule' is a built-in study"),
        (("new", "there", "--from", "k_schedule"), "there is a file there.yaml already"),
        (("new", "mine", "--from", "k_schedul"), "did you mean 'k_schedule'?"),
        (("new", "mine"), "--from"),
        (("check", "./nowhere.yaml"), "there is no file"),
        (("check", "./there.yaml"), "there.yaml"),
    ],
)
def test_wrong_input_is_refused(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "there.yaml").write_text("- not a study\n")
    refused = study(*args, cwd=tmp_path)
    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert (tmp_path / "there.yaml").read_text() == "- not a study\n"
    assert not (tmp_path / "mine.yaml").exists()

"""`study run` again, with more seeds, as a variant, with failures, and twice at once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from studies.cli.running import next_step
from tests.homes import TINY, attempts, dump, study, succeeds, tensors


def missing(*args: str | Path, home: Path) -> tuple[int, int]:
    """(segments, evaluations) that a plan says are left."""
    left = json.loads(succeeds("plan", *args, "--json", home=home))["missing"]
    return left["segments"], left["evaluations"]


def ends(home: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / "DONE.json").read_text()) for folder in attempts(home)]


def test_an_undisturbed_run_leaves_no_rolling_checkpoint_and_nothing_half_written(tiny: Path) -> None:
    plan = json.loads(succeeds("plan", TINY, "--json", home=tiny))
    assert plan["missing"]["segments"] == plan["missing"]["evaluations"] == 0
    kept = sorted(tiny.glob("trajectories/*/checkpoints/*"))
    assert len(kept) == plan["segments"] == 8
    assert not list(tiny.glob("trajectories/*/attempts/*/staged-*"))
    assert not list(tiny.glob("trajectories/**/*.lease"))
    assert Counter(end["status"] for end in ends(tiny)) == {"done": 16}


def test_running_again_computes_nothing_and_says_so(copy: Path) -> None:
    before, tensors_before, was = attempts(copy), tensors(copy), dump(copy)
    out = succeeds("run", TINY, home=copy)
    assert "everything is there already: 8 segments and 18 evaluations; nothing to compute" in out
    assert "missing" not in out
    assert attempts(copy) == before
    assert tensors(copy) == tensors_before
    assert dump(copy) == was


def test_the_next_step_that_is_named_works(copy: Path, tmp_path: Path) -> None:
    out = succeeds("run", TINY, home=copy)
    hint = out.split("Next: ")[1].split("   and")[0].split()
    assert hint[:2] == ["study", "report"]
    succeeds(*hint[1:], "--out", tmp_path / "report", home=copy)


def test_more_seeds_compute_only_those(copy: Path) -> None:
    before = attempts(copy)
    out = succeeds("run", TINY, "--seeds", "0-1", home=copy)
    assert "to do: 8 segments and 18 evaluations; already there: 8 segments and 18 evaluations" in out
    new = attempts(copy) - before
    assert {json.loads((folder / "segment.json").read_text())["seed"] for folder in new} == {1}
    status = json.loads(succeeds("status", "--json", home=copy))
    assert status["studies"][0]["seeds"] == 2
    assert status["studies"][0]["measured"] == status["studies"][0]["points"]


def test_studies_share_what_is_equal(tiny: Path, tmp_path: Path) -> None:
    """A study of one's own that extends another starts from its trajectories where the dynamics are equal."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"""
extends: {TINY}
study: mine
panels:
  left:
    arms: {{v_epochs: [0, 2, 4, 6]}}
scales:
  cpu: {{log_every_steps: 3, threads: 1}}
""",
        encoding="utf-8",
    )
    assert missing(mine, home=tiny) == (2, 3), "v 4→6 and u 6→10"
    own = tmp_path / "scale.yaml"
    own.write_text(
        """
extends: obs_v_then_u
study: shared
scales:
  wide:
    seeds: [0]
    scale_text: "my own"
    steps_per_epoch: 2
    device: cpu
    primary: frechet_pixel
    dynamics:
      network: {name: mlp, width: 96, depth: 3}
      data: digits
      batch_size: 128
      objective: {name: meanflow, adaptive_c: 0.001}
      time_sampler: {name: logit_normal, std: 1.6}
      optimiser: {name: adam, lr: 0.002, beta2: 0.99, warmup_steps: 50, clip_norm: 1.0}
      ema_decay: 0.995
    measure:
      - {metric: {name: frechet, features: pixel}, samples: 500}
""",
        encoding="utf-8",
    )
    both = json.loads(succeeds("plan", own, "--scale", "smoke", "--json", home=tmp_path / "none"))
    wide = json.loads(succeeds("plan", own, "--scale", "wide", "--json", home=tmp_path / "none"))
    assert (both["planned_epochs"], wide["planned_epochs"]) == (370, 370)
    assert _trajectories(own, "wide") == _trajectories("obs_v_then_u", "smoke")


def _trajectories(name: str | Path, scale: str) -> set[str]:
    from studies.arms import expand
    from studies.loader import load_source, resolve

    return {stage.trajectory.key for arm in expand(resolve(load_source(str(name)), scale)) for stage in arm.stages}


def test_a_variant_never_mixes_and_a_failing_segment_stops_only_what_needs_it(copy: Path) -> None:
    own = dump(copy)
    plain = succeeds("results", "--study", TINY, home=copy)
    settings = ("-o", "stages.0.optimiser.lr=1e30", "-o", "log_every_steps=1", "--as", "wild")
    done = study("run", TINY, *settings, home=copy)
    assert done.returncode == 1
    assert "FAILED train" in done.stdout
    assert "Diverged" in done.stdout
    assert "last lines of its log:" in done.stdout
    log = Path(done.stdout.split("\n  log: ")[1].splitlines()[0])
    assert "Diverged" in log.read_text()
    assert "blocked" in done.stdout
    assert "until then this failure will repeat" in done.stdout
    assert succeeds("results", "--study", TINY, home=copy) == plain
    assert dump(copy) != own
    wild = succeeds("results", "--study", TINY, "--as", "wild", home=copy)
    assert {row.split(",")[5] for row in wild.splitlines()[1:]} == {"v0", "joint"}, "what does not need it is there"
    status = json.loads(succeeds("status", "--json", home=copy))
    assert {row["variant"]: row["measured"] == row["points"] for row in status["studies"]} == {
        None: True,
        "wild": False,
    }
    assert [("Diverged" in failure["reason"], failure["kind"]) for failure in status["failed"]] == [(True, "train")]
    assert "failed: train" in succeeds("status", home=copy)


def test_what_would_fail_again_is_not_to_be_retried_as_it_is() -> None:
    def said(*reasons: str) -> str:
        return next_step([SimpleNamespace(reason=reason) for reason in reasons])  # type: ignore[misc]

    assert said("RuntimeError: odd", "lost 3 times") == "run the same command again to retry"
    assert "until then this failure will repeat" in said("Diverged: at step 3")
    assert "until then these failures will repeat" in said("Diverged: at step 3", "DataError: gone")
    assert "until then 1 of these failures will repeat" in said("Diverged: at step 3", "OSError: x")


def test_online_weights_can_be_measured_at_every_point(tmp_path: Path) -> None:
    """A snapshot holds EMA weights only, so these points need full checkpoints."""
    home = tmp_path / "home"
    settings = ("-o", "measure.0.weights=online", "-o", "controls={}", "--as", "online")
    succeeds("run", TINY, *settings, home=home)
    rows = succeeds("results", "--study", TINY, "--as", "online", home=home).splitlines()[1:]
    plan = json.loads(succeeds("plan", TINY, *settings, "--json", home=home))
    assert plan["missing"]["segments"] == plan["missing"]["evaluations"] == 0
    assert len({row.split(",")[0] for row in rows}) == plan["evaluations"]

"""The commands as functions, for notebooks and scripts: the same code, with pandas frames, matplotlib figures and torch
modules in place of text.

    from studies.notebook import open_home

    home = open_home("study_home")
    home.plan("components", scale="paper").cost
    home.frame("obs_v_then_u", metric="frechet_pixel")
    home.compare("obs_v_then_u/top/v0", "obs_v_then_u/top/v20").table
    home.figure(2, panel="top", ax=ax)
    home.claims("obs_v_then_u")
    kept = home.checkpoint("obs_v_then_u/top/v20", seed=0)
    images = home.sample(kept, nfe=1)

Nothing here trains or measures; torch is loaded by `load` and `sample` alone. Errors are those that the commands print:
`studies.errors.StudyError`, `reports.errors.ReportError` and `results.store.StoreError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.layout import Home, default_home
from studies.cli.choose import choose
from studies.cli.onearm import one_arm, side_of
from studies.cli.store import evaluated_in, opened, rates_of, stored_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from sqlalchemy import Engine

    from meanflow_core.config import Weights
    from meanflow_core.samplers import Solver
    from reports.comparison import Comparison
    from sweeps.compare import Difference
    from sweeps.cost import Cost
    from sweeps.session import Session
    from sweeps.weights import Kept


@dataclass(frozen=True)
class Plan:
    """What studies would train: ``cost`` of everything and ``remaining`` of what is not there yet, for all seeds."""

    session: Session
    cost: Cost
    remaining: Cost

    @property
    def epochs(self) -> tuple[float, float]:
        """(planned, naive) epochs a seed of the paper's arms: with shared prefixes, and without."""
        counted = self.session.epochs()
        return counted.planned, counted.naive


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one arm at one epoch from its root, as a home keeps them."""

    kept: Kept
    weights: Weights = "ema"

    @property
    def epoch(self) -> float:
        return self.kept.epoch

    @property
    def step(self) -> int:
        return self.kept.step

    def load(self, device: str = "cpu") -> torch.nn.Module:
        """u_θ(z, r, t, y) with these weights; v is u_θ(z, t, t, y). Raises: CheckpointError."""
        from sweeps.weights import load_network

        return load_network(self.kept, self.weights, device)


@dataclass(frozen=True)
class OpenHome:
    """A home; every call looks at it anew, and takes what is new into its store first."""

    home: Home

    @contextmanager
    def _store(self) -> Iterator[Engine]:
        with opened(self.home) as engine:
            yield engine

    def _name(self, study: str | int, *, table: bool = False) -> tuple[str, str | None]:
        from studies.cli.choose import study_of_figure

        return study_of_figure(study, table) if isinstance(study, int) else (stored_name(study, self.home.root), None)

    def studies(self) -> pd.DataFrame:
        """What was run here: a row a run, oldest first."""
        from results.queries import runs

        with self._store() as engine:
            return runs(engine)

    def plan(
        self,
        *studies: str,
        scale: str | None = None,
        seeds: str | None = None,
        overrides: Sequence[str] = (),
        variant: str | None = None,
    ) -> Plan:
        """As `study plan`: names or files, and e.g. ``seeds="0-5"``, ``overrides=["dynamics.ema_decay=0.99"]``."""
        from sweeps.plan import Inventory
        from sweeps.session import open_session

        chosen, _ = choose(studies, scale, seeds, overrides, variant)
        session, rates = open_session(chosen, variant), rates_of(self.home.root)
        left = session.jobs(session.inventory(self.home, evaluated_in(self.home.root)))
        return Plan(session, session.cost(session.jobs(Inventory()), rates), session.cost(left, rates))

    def frame(
        self,
        study: str,
        metric: str | None = None,
        *,
        nfe: int | None = None,
        scale: str | None = None,
        variant: str | None = None,
    ) -> pd.DataFrame:
        """Every measured point of a study's latest run, tidy: a row a point, the arm's attributes as columns of their
        own (``attribute.v_epochs``)."""
        import pandas as pd

        from reports.stored import load

        with self._store() as engine:
            rows = load(engine, self.home, study=self._name(study)[0], scale=scale, variant=variant).frame
        rows = rows[rows["value"].notna()]
        rows = rows if metric is None else rows[rows["metric"] == metric]
        rows = rows if nfe is None else rows[rows["nfe"] == nfe]
        rows = rows.reset_index(drop=True)
        attributes = pd.DataFrame(list(rows["attributes"]), index=rows.index).add_prefix("attribute.")
        return rows.drop(columns="attributes").join(attributes)

    def compare(
        self,
        a: str,
        b: str,
        *,
        scale: str | None = None,
        variant: str | None = None,
        b_scale: str | None = None,
        b_variant: str | None = None,
    ) -> Comparison:
        """Two arms (study/panel/arm): ``.table`` of paired differences with intervals, ``.plot(ax, metric)``.

        ``b_scale`` and ``b_variant`` ("-": without one) are those of b, where they are others.
        """
        from reports.comparison import compare

        with self._store() as engine:
            _, first = side_of(engine, self.home, a, scale, variant)
            _, second = side_of(engine, self.home, b, b_scale or scale, b_variant or variant)
        return compare(first, second)

    def differences(self, a: str, b: str, *, scale: str | None = None, variant: str | None = None) -> list[Difference]:
        """In which parts the configurations of two arms differ."""
        from sweeps.differences import arm_differences

        with self._store() as engine:
            first, second = (one_arm(engine, name, scale, variant)[1] for name in (a, b))
        return arm_differences(first, second)

    def figure(
        self,
        study: str | int,
        *,
        panel: str | None = None,
        ax: Axes | None = None,
        metric: str | None = None,
        nfe: int | None = None,
        scale: str | None = None,
        variant: str | None = None,
    ) -> Figure:
        """A study's figure, or the paper's of a number, as a page with its caption; or one ``panel`` of it on ``ax``.

        ``metric`` and ``nfe`` draw it by another measured metric.
        """
        from dataclasses import replace

        from reports.build import subject_of
        from reports.figures import draw
        from reports.onaxes import draw_on
        from reports.stored import load
        from reports.versions import Version

        name, only_scale = self._name(study)
        with self._store() as engine:
            stored = load(engine, self.home, study=name, scale=scale or only_scale, variant=variant)
            subject, _ = subject_of(engine, self.home, stored, study if isinstance(study, int) else None)
        if metric or nfe:
            subject = replace(subject, version=Version("other", metric, nfe))
        if ax is None:
            return draw(subject).figure
        draw_on(ax, subject, panel)
        return ax.get_figure(root=True)  # type: ignore[return-value]

    def claims(self, study: str, *, scale: str | None = None, variant: str | None = None) -> pd.DataFrame:
        """The verdicts on a study's claims, a row each, by their primary metrics. They are recorded, as those that
        `study claims` shows; column ``verdict_record`` holds all that is known of each."""
        import pandas as pd

        from reports.build import build_claims

        with self._store() as engine:
            found = build_claims(engine, self.home, study=self._name(study)[0], scale=scale, variant=variant)
        fields = (
            "metric", "verdict", "effect", "effect_percent", "interval", "interval_percent", "p_holm", "n", "reason",
        )  # fmt: skip
        rows = [
            {"claim": one.claim, "text": one.text, **{name: getattr(one.primary, name) for name in fields},
             "p": one.primary.tested_p, "verdict_record": one}
            for one in found.verdicts
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def checkpoint(
        self,
        arm: str,
        *,
        seed: int | None = None,
        epoch: float | None = None,
        weights: Weights = "ema",
        scale: str | None = None,
        variant: str | None = None,
    ) -> Checkpoint:
        """The weights that are kept of an arm: by default of its first seed, at the last epoch that there is."""
        from sweeps.weights import kept_at

        with self._store() as engine:
            _, found = one_arm(engine, arm, scale, variant, seed)
        return Checkpoint(kept_at(self.home, found, epoch, weights), weights)

    def sample(
        self,
        checkpoint: Checkpoint,
        nfe: int = 1,
        n: int = 16,
        *,
        solver: Solver = "jump",
        latents: int = 0,
        device: str = "cpu",
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """n samples (n, *shape) from latents and labels that depend on ``latents`` and n alone.

        Raises: CheckpointError, EvaluationError.
        """
        from sweeps.weights import sample_arm

        return sample_arm(checkpoint.kept, n, nfe, solver, latents, checkpoint.weights, device).numpy()


def open_home(path: str | Path | None = None) -> OpenHome:
    """A home, by default ``$STUDY_HOME`` or ``./study_home``.

    Raises: StudyError, by the first call that needs something stored, where nothing is.
    """
    return OpenHome(Home(Path(path) if path is not None else default_home()))

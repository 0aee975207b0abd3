"""A figure and the test of a claim, of one's own. Neither needs torch, so reports stay quick."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat

from meanflow_core.registry import BuildContext, Params, component


@component("figure", version=1)
class EveryEnd(Params):
    """Every seed's last value over the power, a marker a metric; grey lines join the seeds."""

    marker_size: PositiveFloat = 5.0

    def build(self, context: BuildContext) -> Any:
        """Returns: draw(axes, rows, study); rows hold every measured point (`reports.ownfigure`)."""

        def draw(axes: Any, rows: Any, study: Any) -> None:
            rows = rows[rows["last"] & (rows["epoch"] == rows["epoch"].max())]
            rows = rows.assign(power=[attributes["power"] for attributes in rows["attributes"]])
            for marker, (metric, of_metric) in zip("osv^D", rows.groupby("metric"), strict=False):
                for _, seed in of_metric.groupby("seed"):
                    axes.plot(seed["power"], seed["value"], color="0.8", linewidth=0.8)
                axes.plot(of_metric["power"], of_metric["value"], marker, markersize=self.marker_size, label=metric)
            axes.set_xlabel("power")
            axes.set_ylabel("value at the end")
            axes.legend(frameon=False)

        return draw


@component("claim", version=1)
class MostSeeds(Params):
    """Supported where the last arm is better than the first in more than ``share`` of the seeds."""

    share: PositiveFloat = 0.5

    def build(self, context: BuildContext) -> Any:
        """Returns: judge(values, claim); values hold a row a seed and a column an arm (`reports.owntest`)."""

        def judge(values: Any, claim: Any) -> dict[str, Any]:
            better = float((values.iloc[:, -1] < values.iloc[:, 0]).mean())
            return {
                "verdict": "supported" if better > self.share else "contradicted",
                "reason": f"better in {100 * better:.0f} % of the seeds",
                "effect": float((values.iloc[:, -1] - values.iloc[:, 0]).mean()),
            }

        return judge

"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("trajectory", TEXT, nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("kind", TEXT, nullable=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("start_step", sa.BigInteger(), nullable=True),
        sa.Column("stop_step", sa.BigInteger(), nullable=True),
        sa.Column("steps", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("seconds_per_step", sa.Double(), nullable=True),
        sa.Column("started", TIME, nullable=True),
        sa.Column("ended", TIME, nullable=True),
        sa.Column("host", TEXT, nullable=True),
        sa.Column("device", TEXT, nullable=True),
        sa.Column("threads", sa.BigInteger(), nullable=True),
        sa.Column("versions", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("trajectory", "attempt", name="pk_attempt"),
    )
    op.create_index("ix_attempt_status", "attempt", ["status"])
    op.create_table(
        "run",
        sa.Column("run", TEXT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("command", sa.JSON(), nullable=False),
        sa.Column("study", TEXT, nullable=False),
        sa.Column("scale", TEXT, nullable=False),
        sa.Column("variant", TEXT, nullable=True),
        sa.Column("seeds", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_hash", TEXT, nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_run"),
    )
    op.create_index("ix_run_study_scale_variant_run", "run", ["study", "scale", "variant", "run"])
    op.create_table(
        "source",
        sa.Column("path", TEXT, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_source"),
    )
    op.create_table(
        "trajectory",
        sa.Column("trajectory", TEXT, nullable=False),
        sa.Column("parent_trajectory", TEXT, nullable=True),
        sa.Column("parent_step", sa.BigInteger(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("horizon_steps", sa.BigInteger(), nullable=True),
        sa.Column("dynamics", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("trajectory", name="pk_trajectory"),
    )
    op.create_index("ix_trajectory_parent_trajectory", "trajectory", ["parent_trajectory"])
    op.create_table(
        "verdict",
        sa.Column("line", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("study", TEXT, nullable=False),
        sa.Column("scale", TEXT, nullable=False),
        sa.Column("variant", TEXT, nullable=True),
        sa.Column("claim", TEXT, nullable=False),
        sa.Column("claim_hash", TEXT, nullable=True),
        sa.Column("protocol", TEXT, nullable=True),
        sa.Column("metric", TEXT, nullable=True),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("direction", TEXT, nullable=True),
        sa.Column("effect", sa.Double(), nullable=True),
        sa.Column("interval_low", sa.Double(), nullable=True),
        sa.Column("interval_high", sa.Double(), nullable=True),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("planned_n", sa.BigInteger(), nullable=True),
        sa.Column("time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("line", name="pk_verdict"),
    )
    op.create_index("ix_verdict_study_scale_variant", "verdict", ["study", "scale", "variant"])
    op.create_table(
        "arm",
        sa.Column("run", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("panel", TEXT, nullable=True),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("control", sa.Boolean(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.run"], name="fk_arm_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "number", name="pk_arm"),
    )
    op.create_table(
        "evaluation",
        sa.Column("evaluation", TEXT, nullable=False),
        sa.Column("trajectory", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("weights", TEXT, nullable=False),
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("nfe", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trajectory", "attempt"], ["attempt.trajectory", "attempt.attempt"], name="fk_evaluation_attempt"
        ),
        sa.PrimaryKeyConstraint("evaluation", name="pk_evaluation"),
    )
    op.create_index("ix_evaluation_trajectory", "evaluation", ["trajectory"])
    op.create_table(
        "metric",
        sa.Column("trajectory", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trajectory", "attempt"], ["attempt.trajectory", "attempt.attempt"], name="fk_metric_attempt"
        ),
        sa.PrimaryKeyConstraint("trajectory", "step", "name", name="pk_metric"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "protocol",
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.run"], name="fk_protocol_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("protocol", "run", name="pk_protocol"),
    )
    op.create_index("ix_protocol_run", "protocol", ["run"])
    op.create_table(
        "point",
        sa.Column("run", TEXT, nullable=False),
        sa.Column("arm_number", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("stage_epoch", sa.Double(), nullable=False),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("trajectory", TEXT, nullable=False),
        sa.Column("evaluation", TEXT, nullable=False),
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("nfe", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run", "arm_number"], ["arm.run", "arm.number"], name="fk_point_arm", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run", "arm_number", "number", name="pk_point"),
    )
    op.create_index("ix_point_evaluation", "point", ["evaluation"])
    op.create_table(
        "stage",
        sa.Column("run", TEXT, nullable=False),
        sa.Column("arm_number", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("trajectory", TEXT, nullable=False),
        sa.Column("start_step", sa.BigInteger(), nullable=False),
        sa.Column("stop_step", sa.BigInteger(), nullable=False),
        sa.Column("start_epoch", sa.Double(), nullable=False),
        sa.Column("stop_epoch", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run", "arm_number"], ["arm.run", "arm.number"], name="fk_stage_arm", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run", "arm_number", "number", name="pk_stage"),
    )

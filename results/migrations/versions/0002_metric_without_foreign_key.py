"""A metric no longer refers to its attempt.

Both are written in one transaction from the same folder, so the check could only ever pass, and on PostgreSQL it
cost about a sixth of the time of an ingest (docs/results.md).
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("metric", table_kwargs={"sqlite_with_rowid": False}) as metric:
        metric.drop_constraint("fk_metric_attempt", type_="foreignkey")

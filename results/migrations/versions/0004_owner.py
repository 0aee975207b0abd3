"""A store notes the home whose results it holds, so that those of two homes are not mixed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table("owner", sa.Column("home", text, nullable=False), sa.PrimaryKeyConstraint("home", name="pk_owner"))

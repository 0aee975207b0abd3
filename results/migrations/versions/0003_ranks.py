"""Attempts say how many processes shared their steps, so that step times of several count for what they took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("ranks", sa.BigInteger(), nullable=True))

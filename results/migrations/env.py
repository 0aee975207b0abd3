"""Alembic's entry: runs the migrations in the transaction that `results.store` hands over."""

from alembic import context

from results.models import Base
from results.store import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()

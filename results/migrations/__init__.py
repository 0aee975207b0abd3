"""Alembic migrations of the store; `results.store.open_store` runs them.

To add one, change `results.models`, then::

    with writing(open_store(url)) as connection:
        alembic.command.revision(alembic_config(connection), "what changes", autogenerate=True, rev_id="0002")

look it over, and set `results.store.HEAD`.
"""

"""The SQL store: models, migrations, ingest of run directories, queries. Imports no torch, no sibling."""

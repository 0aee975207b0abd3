"""The SQL store: models, migrations, ingest from run directories, queries. Imports neither torch nor the others."""

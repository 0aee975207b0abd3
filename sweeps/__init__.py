"""The orchestrator: tree of trajectories, plan, worker, leases and backends."""

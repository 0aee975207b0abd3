"""Trainers of one's own under the worker's protocol (docs/worker-protocol.md): programs that import nothing of ours."""

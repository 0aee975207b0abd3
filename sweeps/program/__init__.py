"""Trainers of your own under the worker's protocol (docs/worker-protocol.md): programs that import nothing of ours."""

"""A foreign trainer for tests: numpy and the standard library, and none of the project's packages."""

import json
import signal
import sys
from pathlib import Path

import numpy as np


def train(job):
    stopped, rate = [], job["options"]["rate"]
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    weights = np.random.default_rng(job["seed"]).normal(size=4)
    if job["resume_from"]:
        weights = np.load(Path(job["resume_from"]) / "deep" / "weights.npy")
    checkpoints, step = Path(job["checkpoints"]), job["start_step"]
    while True:
        if step > job["start_step"] and (step % job["log_every_steps"] == 0 or step in job["report"].get("size", [])):
            with Path(job["metrics"]).open("a") as f:
                f.write(json.dumps({"step": step, "values": {"size": float(abs(weights).sum())}}) + "\n")
        every = job["checkpoint_every_steps"]
        ends = step == job["stop_step"] or stopped
        if step in job["save_steps"] or ends or (every and step % every == 0 and step > job["start_step"]):
            aside = checkpoints / "aside"
            (aside / "deep").mkdir(parents=True)
            np.save(aside / "deep" / "weights.npy", weights)
            aside.rename(checkpoints / f"{step:09d}")
        if ends:
            sys.exit(0 if step == job["stop_step"] else 75)
        towards = np.random.default_rng([job["seed"], step]).normal(size=4) + 2 * job["dynamics"]["fm_ratio"]
        weights, step = weights + rate * (towards - weights), step + 1


def sample(request):
    given = np.load(request["latents"])
    weights = np.load(Path(request["checkpoint"]) / "deep" / "weights.npy")
    x = given["z"] * 0.1 + weights[given["y"] % 4, None, None, None]
    np.savez(request["output"], x=x.astype(np.float32))


if __name__ == "__main__":
    {"--segment": train, "--request": sample}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))

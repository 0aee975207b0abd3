"""A trainer that knows only the files of docs/worker-protocol.md: MeanFlow on scikit-learn's digits."""

import itertools
import json
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits


def build(seed, width):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(66, width), torch.nn.SiLU(), torch.nn.Linear(width, width), torch.nn.SiLU()
    network = torch.nn.Sequential(*layers, torch.nn.Linear(width, 64))
    return network, lambda z, r, t: network(torch.cat([z, r, t], 1))


def train(job):
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    data = torch.tensor(load_digits().data / 8 - 1, dtype=torch.float32)
    network, u = build(job["seed"], job["options"]["width"])
    optimiser = torch.optim.Adam(network.parameters(), lr=job["options"]["lr"])
    if job["resume_from"]:
        state = torch.load(f"{job['resume_from']}/state.pt", weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])

    def save(step):
        aside = Path(job["checkpoints"]) / "unfinished"
        aside.mkdir()
        torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict()}, aside / "state.pt")
        aside.rename(aside.with_name(f"{step:09d}"))

    n, step = job["dynamics"]["batch_size"], job["start_step"]
    if step in job["save_steps"]:
        save(step)
    while step < job["stop_step"] and not stopped:
        rng = torch.Generator().manual_seed(1_000_003 * job["seed"] + step)
        x, eps = data[torch.randint(len(data), (n,), generator=rng)], torch.randn(n, 64, generator=rng)
        r, t = torch.rand(2, n, 1, generator=rng).sort(0).values
        r[: round(job["dynamics"]["fm_ratio"] * n)] = t[: round(job["dynamics"]["fm_ratio"] * n)]
        v, one = eps - x, torch.ones_like(t)
        out, du_dt = torch.func.jvp(u, ((1 - t) * x + t * eps, r, t), (v, 0 * one, one))
        loss = (out - (v - (t - r) * du_dt).detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % job["log_every_steps"] == 0 or step in job["report"].get("loss", []):
            with Path(job["metrics"]).open("a") as f:
                f.write(json.dumps({"step": step, "values": {"loss": loss.item()}}) + "\n")
        if step in job["save_steps"] or step % (job["checkpoint_every_steps"] or step + 1) == 0 or stopped:
            save(step)
    sys.exit(75 if step < job["stop_step"] else 0)


def sample(request):
    if request["weights"] != "online":
        sys.exit("this trainer keeps no EMA weights: write 'weights: online' in the study")
    network, u = build(0, request["options"]["width"])
    network.load_state_dict(torch.load(f"{request['checkpoint']}/state.pt", weights_only=True)["network"])
    z = torch.tensor(np.load(request["latents"])["z"]).flatten(1)
    times = torch.linspace(1, 0, request["nfe"] + 1)
    for t, r in itertools.pairwise(times):
        one, to = torch.ones(len(z), 1), r if request["solver"] == "jump" else t
        z = z - (t - r) * u(z, to * one, t * one).detach()
    np.savez(request["output"], x=z.reshape(-1, 1, 8, 8).numpy())


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"--segment": train, "--request": sample}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))

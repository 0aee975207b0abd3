"""``study db`` and ``study doctor``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from meanflow_core.words import counted
from studies.cli.options import DEFAULT_HOME, HomeOpt, JsonOpt

db = typer.Typer(no_args_is_help=True, help="The SQL store: a cache of the run directories, never the only copy.")


@db.command("rebuild")
def rebuild(
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the store outside of the home is, or may be, another home's.")
    ] = False,
    home: HomeOpt = DEFAULT_HOME,
) -> None:
    """Make the store again from the run directories."""
    from results.layout import Home
    from results.rebuild import rebuild as rebuild_store
    from studies.cli.choose import home_exists
    from studies.errors import StudyError

    if not home_exists(home):
        raise StudyError(f"nothing is stored in {home}; give the folder of a run with --home")
    report = rebuild_store(Home(home).store_url, Home(home), replace=replace)
    sys.stdout.write(
        f"rebuilt from {home}: {counted(report.runs, 'run')}, "
        f"{counted(report.trajectories, 'trajectory', 'trajectories')}, "
        f"{counted(report.attempts, 'attempt')}, {counted(report.metrics, 'metric value')}, "
        f"{counted(report.evaluations, 'evaluation')}, {counted(report.verdicts, 'verdict')}\n"
    )


@db.command("dump")
def dump(home: HomeOpt = DEFAULT_HOME) -> None:
    """Print the store in a canonical form, without attempts, times and hosts: equal results give equal dumps."""
    from results.dump import canonical_dump
    from results.layout import Home
    from studies.cli.store import opened

    with opened(Home(home)) as engine:
        for line in canonical_dump(engine):
            sys.stdout.write(line + "\n")


def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time real steps, so that plans can state hours.")
    ] = False,
    home: HomeOpt = DEFAULT_HOME,
    json: JsonOpt = False,
) -> None:
    """Check this installation and this machine. With --calibrate, time training steps for `study plan`."""
    from studies.cli.output import print_json

    checks = [*_check_machine(), *_check_home(home)]
    record: dict[str, Any] = {"checks": checks}
    if calibrate and all(check["ok"] for check in checks if check["needed"]):
        from results.layout import Home
        from sweeps.calibrate import calibrate as measure

        record["calibration"] = measure(Home(home))
    if json:
        print_json(record)
    else:
        for check in checks:
            mark = "ok  " if check["ok"] else ("FAIL" if check["needed"] else "--  ")
            sys.stdout.write(f"{mark} {check['what']}: {check['found']}\n")
        for network, rate in record.get("calibration", {}).get("flops_per_s", {}).items():
            sys.stdout.write(f"calibrated {network}: {rate / 1e9:.2f} useful GFLOP/s a process\n")
    if not all(check["ok"] for check in checks if check["needed"]):
        sys.exit(1)


def _check(what: str, ok: bool, found: str, needed: bool = True) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": found, "needed": needed}


def _check_machine() -> list[dict[str, Any]]:
    from sweeps.provenance import machine, package_versions

    m = machine()
    checks = [
        _check("python", sys.version_info >= (3, 11), f"{m['python']} on {m['system']} ({m['architecture']})"),
        _check("cores and memory", True, f"{m['cores']} cores, {m['memory_gib']} GiB"),
    ]
    versions = package_versions()
    try:
        import torch
        import torchvision  # noqa: F401

        kind = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: scales for the CPU will run"
        checks.append(_check("torch", True, f"{torch.__version__}, torchvision {versions.get('torchvision')}"))
        checks.append(_check("GPU", torch.cuda.is_available(), kind, needed=False))
    except (ImportError, RuntimeError, OSError) as error:
        checks.append(_check("torch", False, f"cannot be imported: {error}. Install torch and torchvision together"))
    try:
        from meanflow_core.evaluation.extractor import load_digits_cnn

        load_digits_cnn()
        checks.append(_check("digits feature extractor", True, "weights verified"))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        checks.append(_check("digits feature extractor", False, str(error)))
    return checks


def _check_home(home: Path) -> list[dict[str, Any]]:
    """Whether the home can be written and its store opened. Makes nothing that was not there."""
    from results.layout import Home
    from results.owner import check_owner, is_writable
    from studies.cli.choose import home_exists

    there = home if home.exists() else next(p for p in home.absolute().parents if p.exists())
    writable = there.is_dir() and is_writable(Home(there))
    free = shutil.disk_usage(there).free / 2**30
    checks = [
        _check("home", writable, f"{home}" + ("" if writable else " cannot be written; give another with --home")),
        _check("free disk", free > 1.0, f"{free:.1f} GiB"),
    ]
    if home_exists(home):
        from results.store import StoreError, open_store, reading

        try:
            engine = open_store(Home(home).store_url)
            with reading(engine) as connection:
                check_owner(connection, Home(home))
            engine.dispose()
            checks.append(_check("store", True, engine.url.render_as_string(hide_password=True)))
        except StoreError as error:
            checks.append(_check("store", False, str(error)))
    return checks

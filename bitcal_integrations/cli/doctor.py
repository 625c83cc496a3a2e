"""`bitcal doctor`: what this machine has, whether the package works on it, and how fast it is.

Collects plain lines first and prints them afterwards. Knows nothing of what a check does inside:
that is `_selftest.py`, and the benchmarks are the package `bench`.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from bitcal_integrations.cli._options import Device, Dtype, Json, Weights, weights_of
from bitcal_integrations.cli._server import Api, Served, server_arguments

PACKAGES = (
    "bitcal-integrations",
    "torch",
    "transformers",
    "optimum-quanto",
    "langchain-core",
    "llama-index-core",
)


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Also load this model, or reach this server, and say how it is served.",
        ),
    ] = None,
    weights: Weights = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    served: Served = None,
    api: Api = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Also measure the ratios of README's table (minutes).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check versions, device and kernels; run a self-test."""
    from bitcal_integrations.cli._show import console, print_json

    given = server_arguments(model or "", served, api)
    out = console(quiet=as_json)
    report: dict[str, Any] = {"versions": versions()}
    draw_facts(out, "versions", report["versions"])
    report["machine"] = machine(dtype, device)
    draw_facts(out, "machine", report["machine"])
    report["self_test"] = checked(out)
    if model is not None:
        how = {"weights": weights_of(weights), "dtype": dtype, "device": device, **given}
        report["model"] = model_report(model, how)
        draw_facts(out, model, report["model"])
    if bench:
        report["bench"] = measured(out)
    if as_json:
        print_json(report)
    if not all(check["ok"] for check in report["self_test"]):
        raise typer.Exit(1)


def versions() -> dict[str, str]:
    """Python and the packages that decide how a model runs."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine(dtype: str, device: str) -> dict[str, Any]:
    """Device, number type with its reason, kernels and threads."""
    from bitcal_integrations.quantize._dtype import (
        bfloat16_problem,
        name_of,
        pick_device,
        pick_dtype,
    )

    chosen = pick_device(device)
    number_type, reason = pick_dtype(dtype, chosen, None)
    problem = bfloat16_problem(chosen)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(chosen),
        "dtype": name_of(number_type),
        "dtype reason": reason,
        "fast int8 and int4 kernels": f"no: {problem}" if problem else "yes, in bfloat16",
        "CPU threads": f"{threads()} of {os.cpu_count()}",
    }


def threads() -> int:
    """How many threads the numeric libraries of this process use."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def model_report(model: str, how: dict[str, Any]) -> dict[str, Any]:
    """What a loaded model says about itself."""
    from bitcal_integrations.cli._show import progress
    from bitcal_integrations.model import load

    with progress() as report:
        loaded = load(model, progress=report, **how)
    with loaded:
        return dict(loaded.report())


def checked(out: Any) -> list[dict[str, Any]]:
    """The self-test, shown line by line as it goes."""
    from bitcal_integrations.cli._selftest import self_test

    found = []
    out.print("self-test", style="bold")
    for name, problem in self_test():
        found.append({"name": name, "ok": not problem, "problem": problem})
        draw_check(out, name, problem)
    out.print()
    return found


def measured(out: Any) -> Any:
    """The rows of the benchmarks, shown as a Markdown table."""
    from bitcal_integrations.bench import run, table
    from bitcal_integrations.cli._show import progress

    with progress() as report:
        found = run(names=None, progress=report)
    out.print(table(found), soft_wrap=True)
    return [row.to_dict() for row in found]


def draw_facts(out: Any, title: str, facts: dict[str, Any]) -> None:
    """A heading and one aligned line per fact; long values wrap under themselves."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2), pad_edge=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, str(value))
    out.print(title, style="bold")
    out.print(grid)
    out.print()


def draw_check(out: Any, name: str, problem: str) -> None:
    """One line: ok, or failed and why."""
    from rich.text import Text

    mark = Text("failed", style="red") if problem else Text("ok", style="green")
    line = Text.assemble("  ", mark, f" {name}", f": {problem}" if problem else "")
    out.print(line, soft_wrap=True)

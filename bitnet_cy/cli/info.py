"""bitnet-cy info: what a bug report needs to know about this installation and machine."""

from __future__ import annotations

import argparse
from typing import Any

from bitnet_cy.cli import options, output
from bitnet_cy.cli.breakdown import memory_rows


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser("info", help="describe this machine", description=__doc__)
    parser.add_argument(
        "-m", "--model", metavar="FILE", help="show also what this GGUF file takes in memory"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from bitnet_cy.report import info

    found = info()
    if arguments.model is not None:
        from bitnet_cy.model import load

        model = load(arguments.model)
        found["model"] = {
            "name": model.path.name,
            "context_length": model.context_length,
            "weights": str(model.weights),
            "memory": model.memory_breakdown,
        }
    if arguments.json:
        output.write_json(found)
    else:
        print(as_text(found))
    return 0


def as_text(found: dict[str, Any]) -> str:
    """The report of bitnet_cy.info() for people."""
    from bitnet_cy.memory import size

    cpu, kernels, threads = found["cpu"], found["kernels"], found["threads"]
    quota = "" if cpu["quota"] is None else f", cgroup quota of {cpu['quota']:g} CPUs"
    forced = f" (forced by BITNET_CY_KERNEL={kernels['forced']})" if kernels["forced"] else ""
    openmp = "with OpenMP" if threads["openmp"] else "built without OpenMP"
    left = found["memory"]["available"]
    rows = [
        ["bitnet_cy", found["version"]],
        ["python", found["python"]],
        ["platform", found["platform"]],
        ["packages", ", ".join(f"{k} {v or '-'}" for k, v in found["dependencies"].items())],
        ["cpu", f"{cpu['name']} ({cpu['machine']})"],
        ["cores", f"{cpu['usable']}, {cpu['logical']} logical{quota}"],
        ["features", " ".join(cpu["features"]) or "none beyond the baseline"],
        ["kernel", f"{kernels['chosen']}{forced}; available: {', '.join(kernels['available'])}"],
        *[[f"  {name}", kernel] for name, kernel in kernels["operations"].items()],
        ["threads", f"{threads['count']}: {threads['reason']} ({openmp})"],
        ["memory", "unknown" if left is None else f"{size(left)} available"],
        *_model_rows(found.get("model")),
    ]
    return output.table([[name, output.printable(value)] for name, value in rows])


def _model_rows(model: dict[str, Any] | None) -> list[list[str]]:
    if model is None:
        return []
    context = f"with a context of {model['context_length']} tokens"
    head = [["model", f"{model['name']}, {context}"], ["weights", model["weights"]]]
    return [*head, *memory_rows(model["memory"])]

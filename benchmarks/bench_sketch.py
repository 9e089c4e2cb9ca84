"""The sketch engine: a whole model's pass beside its plain forward and backward pass, and the kernels alone.

    python benchmarks/bench_sketch.py --out benchmarks/results/sketch.json
    python benchmarks/bench_sketch.py --quick       # a smoke run on a tiny model; its figures mean nothing

GPT-2 (124M) with random weights, evaluation mode, float32; passes take turns and medians are compared. A plain pass is
the model's own loss and its gradients by all parameters that are sketched, with logits at all positions. A Markdown
table goes beside the JSON. `--cases` and `--tables` pick parts. In a checkout that is not the installed one, set
PYTHONPATH to it.

`pytest benchmarks/bench_sketch.py` times the kernel by backend and shape, for `results/kernels.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import engine_measures
import pytest
import solve_report
import torch

from gradex_fast import kernels, native
from gradex_fast.cli import calm_libraries

SHAPES = {
    "lora_A 768 -> 16": (8, 128, 768, 16),
    "lora_B 16 -> 768": (8, 128, 16, 768),
    "full 768 -> 768": (8, 128, 768, 768),
}


@pytest.mark.parametrize("dim", [100, 512])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("instruction_set", native.instruction_sets()[1:] or native.instruction_sets())
def test_sketch(benchmark, instruction_set: str, shape: str, dim: int) -> None:
    n, t, p, q = SHAPES[shape]
    inputs, grads = torch.randn(n, t, p), torch.randn(n, t, q)
    benchmark.extra_info["entries of P"] = p * q * dim
    with native.using_instruction_set(instruction_set):
        benchmark(kernels.sketch, inputs, grads, name="weight", seed=0, dim=dim)


def parse() -> argparse.Namespace:
    names = {title.split(",")[0].split()[-1].lower(): title for title in engine_measures.TABLES}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = ("LoRA", "full", "completions")
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--tables", nargs="+", choices=names, default=list(names))
    parser.add_argument("--repeats", type=int, default=5, help="turns of every pass, at least 5 for figures to keep")
    parser.add_argument("--rows", type=int, default=96, help="of the table of lengths")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of the table of lengths")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one turn")
    parser.add_argument("--out", type=Path, help="JSON file to write; Markdown goes beside it")
    options = parser.parse_args()
    options.tables = [names[name] for name in options.tables]
    if options.quick:
        options.repeats, options.rows = 1, 12
    return options


def require_own_package() -> None:
    """The report names this checkout's commit: another checkout's package may not be what is measured."""
    found, own = Path(native.__file__).resolve().parents[1], Path(__file__).resolve().parents[1]
    if found != own:
        raise SystemExit(f"gradex_fast is imported from {found}, this script lies in {own}: set PYTHONPATH={own}")


def main() -> None:
    options = parse()
    require_own_package()
    calm_libraries()
    torch.set_num_threads(options.threads)
    tables = {}
    for title in options.tables:
        print(f"\n{title}", flush=True)
        tables[title] = engine_measures.TABLES[title](options)
        for row in tables[title]:
            solve_report.print_row(row)
    if options.out:
        chosen = {"title": "The sketch engine", "threads": options.threads, "repeats": options.repeats}
        place = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
        report = solve_report.provenance() | chosen | {"device": place, "quick": options.quick, "tables": tables}
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        options.out.with_suffix(".md").write_text(solve_report.markdown(report))


if __name__ == "__main__":
    main()

"""Tables of what the two workloads measured: one CSV a table, and tables.md with the targets first.

python benchmarks/fidelity/tables.py
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS
from measured import Seeds, accuracies, behind_real, lead, mean, of, read, savings

Line = dict[str, Any]
RIVALS = ("all", "random", "dsir", "deft", "less", "dsir, as many", "deft, as many", "less, as many")


def targets(addition: Seeds, sentiment: Seeds) -> list[Line]:
    """What issue and paper ask for, and what came out."""
    return [
        *_addition(addition),
        *_sentiment(sentiment),
        *_greedy("addition", addition),
        *_greedy("sentiment", sentiment),
    ]


def _line(workload: str, measure: str, wanted: str, values: list[float], met: bool, form: str = "{:.3g}") -> Line:
    middle, half = mean(values)
    shown = form.format(middle) + (f" ± {form.format(half)}" if np.isfinite(half) else "")
    return {
        "workload": workload,
        "measure": measure,
        "must reach": wanted,
        "mean, 95 %": shown,
        "seeds": len(values),
        "met": "yes" if met else "no",
    }


def _addition(seeds: Seeds) -> Iterator[Line]:
    if spearman := of(seeds, "truth", "spearman"):
        yield _line("addition", "Spearman of f̂ and f", "≥ 0.90", spearman, np.mean(spearman) >= 0.9)
        pairs = zip(of(seeds, "truth", "calibrated_error"), of(seeds, "truth", "constant_error"), strict=True)
        ratio = [a / b for a, b in pairs]
        yield _line("addition", "relative error, calibrated / constant", "≤ 0.2", ratio, np.mean(ratio) <= 0.2)
    if auc := of(seeds, "rivals", "separation", "gradex", "auc"):
        yield _line("addition", "AUC of noisy groups", "1.00", auc, min(auc) == 1, "{:.3f}")
        mine = of(seeds, "rivals", "separation", "gradex", "gap")
        for rival in ("dsir", "deft", "less"):
            ahead = np.subtract(mine, of(seeds, "rivals", "separation", rival, "gap")).tolist()
            yield _line("addition", f"gap above {rival}'s, standard deviations", "> 0", ahead, np.mean(ahead) > 0)


def _sentiment(seeds: Seeds) -> Iterator[Line]:
    if of(seeds, "rivals"):
        for rival in RIVALS:
            if points := lead(seeds, rival):
                yield _line("sentiment", f"test points above {rival}", "≥ 2", points, np.mean(points) >= 2, "{:.1f}")
    if behind := behind_real(seeds):
        yield _line("sentiment", "points behind real forward selection", "≤ 1", behind, np.mean(behind) <= 1, "{:.1f}")
    for unit in ("work", "seconds"):
        for search, times in savings(seeds, unit).items():
            least = 30 if search == "forward" else 44
            named = f"{unit}: real {search} / GRADEX"
            yield _line("sentiment", named, f"≥ {least}", times, np.mean(times) >= least, "{:.0f}")
    for part, named in {"rrss": "LoRA", "rrss_full": "all parameters"}.items():
        worst = [max(row["rrss"] for row in rows if row["distance"] <= 0.0015001) for rows in of(seeds, part, "rows")]
        if worst:
            yield _line("sentiment", f"RRSS within 0.15 %, {named}", "≤ 1e-3", worst, max(worst) <= 1e-3, "{:.1e}")


def _greedy(name: str, seeds: Seeds) -> Iterator[Line]:
    found = of(seeds, "forward")
    if found:
        same = [float(one["same_first"]) for one in found]
        yield _line(name, "same first choice by f̂ and f", "all", same, min(same) == 1, "{:.2f}")
        for kind, label in {"estimated": "forward by f̂", "ensemble": "ensemble by f̂"}.items():
            above = [100 * (one[kind]["f"] / one["real"]["f"] - 1) for one in found]
            wanted = "≤ 1" if kind == "estimated" else ""
            yield _line(
                name, f"f of the chosen set above f's own, %, {label}", wanted, above, np.mean(above) <= 1, "{:.1f}"
            )


def finals(seeds: Seeds) -> list[Line]:
    """Accuracy of the final model by method."""
    rows = [(name, values, *mean([100 * value for value in values])) for name, values in accuracies(seeds).items()]
    return [
        {"method": name, "test accuracy, %": f"{middle:.1f}", "± 95 %": f"{half:.1f}", "seeds": len(values)}
        for name, values, middle, half in sorted(rows, key=lambda row: -row[2])
    ]


def separations(name: str, seeds: Seeds) -> list[Line]:
    """By rival: AUC and gap."""
    known = of(seeds, "rivals", "separation")
    lines = []
    for rival in known[0] if known else ():
        auc, gap = ([one[rival][key] for one in known] for key in ("auc", "gap"))
        row = {"AUC": f"{np.mean(auc):.3f}", "lowest": f"{min(auc):.3f}", "gap, SD": f"{np.mean(gap):.2f}"}
        lines.append({"workload": name, "rival": rival, **row})
    return lines


def shares(name: str, seeds: Seeds) -> list[Line]:
    """The ensemble by d and α, means over seeds."""
    known, lines = of(seeds, "shares", "rows"), []
    for place, row in enumerate(known[0] if known else ()):
        means = {key: np.mean([rows[place][key] for rows in known]) for key in ("auc", "gap", "kept", "bad")}
        shown = {key: f"{value:.3f}" if key == "auc" else f"{value:.1f}" for key, value in means.items()}
        lines.append({"workload": name, "d": row["dim"], "α": row["share"], **shown, "seeds": len(known)})
    return lines


def searches(name: str, seeds: Seeds) -> list[Line]:
    """By seed: forward selection by f̂ and by f."""
    lines = []
    for one in seeds:
        if found := one.get("forward"):
            row: Line = {"workload": name, "seed": one["seed"], "trainings": found["trainings"]}
            for kind in ("estimated", "real", "ensemble"):
                row |= {f"{kind}: f": f"{found[kind]['f']:.4f}", f"{kind}: sources": len(found[kind]["chosen"])}
            row |= {"rank of f̂'s first": found["rank_of_first"], "Spearman": f"{found['tried']['all']:.2f}"}
            lines.append(row)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    addition, sentiment = read(folder, "addition"), read(folder, "sentiment")
    tables = {
        "targets": targets(addition, sentiment),
        "finals": finals(sentiment),
        "separation": [*separations("addition", addition), *separations("sentiment", sentiment)],
        "shares": [*shares("addition", addition), *shares("sentiment", sentiment)],
        "forward": [*searches("addition", addition), *searches("sentiment", sentiment)],
    }
    for name, lines in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, lines[0] if lines else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    (folder / "tables.md").write_text("\n".join(map(_markdown, filter(None, tables.values()))), encoding="utf-8")
    print((folder / "tables.md").read_text(encoding="utf-8"))


def _markdown(lines: list[Line]) -> str:
    head = ["| " + " | ".join(lines[0]) + " |", "|---" * len(lines[0]) + "|"]
    return "\n".join([*head, *("| " + " | ".join(map(str, line.values())) + " |" for line in lines), ""])


if __name__ == "__main__":
    main()

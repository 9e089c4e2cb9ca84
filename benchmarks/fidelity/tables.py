"""Tables of what the two workloads measured: one CSV a table, and tables.md with the targets first.

python benchmarks/fidelity/tables.py
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from common import RESULTS
from measured import Seeds, accuracies, mean, of, read
from targets import Line, targets


def finals(seeds: Seeds) -> list[Line]:
    """Accuracy of the final model by method."""
    rows = [(name, values, *mean([100 * value for value in values])) for name, values in accuracies(seeds).items()]
    return [
        {"method": name, "test accuracy, %": f"{middle:.1f}", "± 95 %": _figure(half), "seeds": len(values)}
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


def costs(seeds: Seeds) -> list[Line]:
    """By rival, with the stages on which it builds, and real forward selection; one final training is in none."""
    known = {name: of(seeds, "rivals", "costs", name) for name in (of(seeds, "rivals", "costs") or [{}])[0]}
    known |= {"forward, real fine-tuning": of(seeds, "forward", "cost")}
    return [
        {"method": name, **{unit: f"{np.mean(of(each, unit)):.0f}" for unit in ("work", "seconds")}}
        for name, each in known.items()
        if each
    ]


def rrss(seeds: Seeds) -> list[Line]:
    """The first-order expansion by distance, means over seeds; the last of a direction is where it really goes."""
    lines = []
    for part, named in {"rrss": "LoRA", "rrss_full": "all"}.items():
        for rows in zip(*of(seeds, part, "rows"), strict=True):
            means = {key: np.mean([row[key] for row in rows]) for key in ("distance", "rrss", "rrss_constant")}
            shown = {key: f"{value:.2%}" if key == "distance" else f"{value:.1e}" for key, value in means.items()}
            lines.append({"parameters": named, "direction": rows[0]["direction"], **shown, "seeds": len(rows)})
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
        "costs": costs(sentiment),
        "rrss": rrss(sentiment),
        "forward": [*searches("addition", addition), *searches("sentiment", sentiment)],
    }
    for name, lines in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, lines[0] if lines else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    (folder / "tables.md").write_text("\n".join(map(_markdown, filter(None, tables.values()))), encoding="utf-8")
    print((folder / "tables.md").read_text(encoding="utf-8"))


def _figure(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "–"


def _markdown(lines: list[Line]) -> str:
    head = ["| " + " | ".join(lines[0]) + " |", "|---" * len(lines[0]) + "|"]
    return "\n".join([*head, *("| " + " | ".join(map(str, line.values())) + " |" for line in lines), ""])


if __name__ == "__main__":
    main()

"""`gradex-fast bench`: what is counted against a brute count, the schema, the comparison; no time is a condition."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gradex_fast.bench import ceilings, counts, fits, pass_cases, solve_cases
from gradex_fast.bench.cases import Case, Group
from gradex_fast.bench.compare import compare
from gradex_fast.bench.counts import Work
from gradex_fast.bench.kernel_cases import kernel_groups
from gradex_fast.bench.models import CONFIGS, make_batch, make_model, recipe_of
from gradex_fast.bench.pass_cases import PLAIN, pass_groups, plain_pass
from gradex_fast.bench.problems import Size, make_problem, random_subsets
from gradex_fast.bench.record import Record
from gradex_fast.bench.results import Results, Spread
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.bench.shapes import Shape, layers_of
from gradex_fast.bench.turns import MOST_CALLS, in_rounds
from gradex_fast.cli import main
from gradex_fast.errors import GradexError
from gradex_fast.model import load_outline
from gradex_fast.modules import trainable
from gradex_fast.reference.projection import projection
from gradex_fast.terms import Factors, LookUps, add_sketch

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"model": "tiny", "rows": 2, "tokens": 8, "dim": 5, "samples": 60, "sources": 6, "subsets": 4}
QUICK = ["--model", "tiny", "--rows", "2", "--tokens", "8", "--dim", "5", "--repeats", "3", "--seconds", "9"]
SOLVE = ["--samples", "60", "--sources", "6", "--subsets", "4"]
CEILINGS = {"bandwidth": 1e9, "float32": 1e10, "bfloat16": 2e10, "gaussian": 1e8, "rademacher": 1e9}


@pytest.fixture
def quick_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring them takes seconds, and no test here is about their values but one."""
    monkeypatch.setattr(ceilings, "measure", lambda device, distributions, threads: dict(CEILINGS))


def brute(function, *tensors: torch.Tensor) -> int:
    """FLOPs of matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        function(*tensors)
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (2, 9, 16, 3), (1, 1, 6, 6)])
def test_a_sketch_is_the_gradients_and_their_product_with_P(shape):
    n, t, p, q = shape
    x, d, dim = torch.randn(n, t, p), torch.randn(n, t, q), 11
    matrix = torch.from_numpy(projection("w", 0, p * q, dim)).float()
    formed = brute(lambda x, d: torch.bmm(d.mT, x).flatten(1) @ matrix, x, d)
    size, flops, entries = counts.sketch(n, t, p, q, dim, size=4, distribution="gaussian")
    assert (flops, entries) == (formed, matrix.numel())
    assert size == x.nbytes + d.nbytes + torch.zeros(n, dim).nbytes
    half = counts.sketch(n, t, p, q, dim, size=2, distribution="gaussian")[0]
    assert size - half == (x.nbytes + d.nbytes) / 2
    assert counts.sketch(n, t, p, q, dim, size=4, distribution="tensorsketch")[2] == 0


def test_project_and_lift_are_products_with_P():
    rows, dim = torch.randn(3, 40), 7
    matrix = torch.from_numpy(projection("w", 0, 40, dim)).float()
    size, flops, entries = counts.project(3, 40, dim, distribution="gaussian")
    out = rows @ matrix
    assert (flops, entries) == (brute(torch.mm, rows, matrix), matrix.numel())
    assert size == rows.nbytes + out.nbytes
    weights = torch.randn(2, dim)
    size, flops, entries = counts.lift(2, 40, dim, distribution="rademacher")
    assert (flops, entries) == (brute(torch.mm, weights, matrix.T.contiguous()), matrix.numel())
    assert size == weights.nbytes + (weights @ matrix.T).nbytes


def test_look_ups_are_counted_by_the_rows_that_they_meet():
    settings = BenchSettings(**SMALL, adapter="full", parts=("kernels",))
    with recipe_of("tiny", adapter="full", dtype="float32") as recipe:
        outline = load_outline(recipe)
    group = next(g for g in kernel_groups(settings, outline, "cpu", torch.float32) if "rows 1000" in g.cases[0].name)
    (call,) = group.make()[group.cases[0].name]
    values, ids = call.args
    work, dim = group.cases[0].work, settings.dim
    met = [(sample, int(row)) for sample, each in enumerate(ids) for row in each]
    assert work.entries == len({row for _, row in met}) * 64 * dim
    assert work.flops == values.numel() + 2 * dim * 64 * len(set(met))
    assert work.bytes == values.nbytes + ids.nbytes + 2 * dim * 4


@pytest.mark.parametrize(("model", "adapter"), [("tiny", "lora"), ("tiny", "full"), ("minilm", "lora")])
def test_layers_are_those_that_a_pass_hands_to_the_kernels(model, adapter, monkeypatch):
    """The shapes of the terms that a real sketch pass reports, against those worked out from the outline."""
    seen: dict[tuple, set[str]] = {}

    def watched(g, term, name, plan):
        if isinstance(term, LookUps):
            kind, q, p = "table", None, term.values.shape[2]
        else:
            assert isinstance(term, Factors)
            q, p = term.grads.shape[2], term.inputs.shape[2]
            kind = "vector" if (q, term.grads.shape[1]) == (1, 1) else "matrix"
        seen.setdefault((kind, q, p), set()).add(name)
        add_sketch(g, term, name, plan)

    monkeypatch.setattr("gradex_fast.sketch.add_sketch", watched)
    with recipe_of(model, adapter=adapter, rank=3, dtype="float32") as recipe:
        made, outline = make_model(recipe, "cpu"), load_outline(recipe)
        pass_cases.Sketcher(made, dim=3)(make_batch(recipe.task, 2, 6, "cpu"))
    found, others = layers_of(outline)
    told: dict[tuple, int] = {}
    for layer, count in found.items():
        key = (layer.kind, None if layer.kind == "table" else layer.q, layer.p)
        told[key] = told.get(key, 0) + count
    assert not others and told == {key: len(names) for key, names in seen.items()}


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_pass_is_counted_as_torch_counts_the_real_one(adapter):
    settings = BenchSettings(**SMALL, adapter=adapter)
    with recipe_of("tiny", adapter=adapter, dtype="float32", attention="eager") as recipe:
        model, batch = make_model(recipe, "cpu"), make_batch(recipe.task, 2, 8, "cpu")
        plain, sketched = (pass_cases.pass_work(settings, recipe, "cpu", kind) for kind in (None, "gaussian"))
        none = pass_cases.pass_work(settings, recipe, "cpu", "tensorsketch")
    assert plain.flops == brute(lambda: plain_pass(model, batch))
    own = {id(p): p for m in model.modules() if not isinstance(m, torch.nn.Embedding) for p in m.parameters(False)}
    weights = sum(parameter.nbytes for parameter in own.values())
    gradients = sum(parameter.nbytes for parameter in trainable(model).values())
    assert plain.bytes > 2 * weights + gradients and sketched.bytes > 2 * weights
    assert plain.entries == none.entries == 0
    tables = {"wte": min(1000, 16), "wpe": min(1024, 16)} if adapter == "full" else {}
    elements = sum(p.numel() for p in trainable(model).values())
    if adapter == "full":  # the head is tied: its matrix is met whole, and its rows once more as a table
        elements += (tables["wte"] + tables["wpe"] - 1024) * 64
    assert sketched.entries == elements * settings.dim


def test_a_solve_is_counted_by_its_steps_and_rows():
    problem, subsets = make_problem(Size(40, 4, 3)), random_subsets(4, 2)
    rows = [sum(np.diff(problem.group_ptr)[np.flatnonzero(subset)]) for subset in subsets]
    work = solve_cases.solve_work(problem, subsets, np.array([2, 5]))
    looks = 4 * 3 * (rows[0] * 3 + rows[1] * 6)
    assert work.flops == pytest.approx(looks + 40 * 9 + 2 * 27 / 3 + 2 * 2 * 687 * 3)
    assert work.bytes == problem.features.nbytes + problem.valid_features.nbytes


def test_the_floor_is_that_of_the_tightest_ceiling():
    work = Work(bytes=2e9, flops=5e9, entries=3e8)
    assert work.floors(CEILINGS) == {"bandwidth": 2.0, "float32": 0.5, "gaussian": 3.0}
    assert replace(work, kind="bfloat16", distribution="rademacher").floors(CEILINGS)["rademacher"] == 0.3
    assert replace(work, entries=0.0).floors({"bandwidth": 1e9}) == {"bandwidth": 2.0}
    record = recorded({"one": [6.0, 12.0, 8.0]}, work)
    (case,) = record.cases
    assert (case.bound, case.floor, case.share) == ("gaussian", 3.0, 3.0 / 8.0)
    assert case.rates == {"units": 0.5}


def test_rounds_take_turns_and_stop_at_the_budget(monkeypatch):
    order, now = [], [0.0]
    monkeypatch.setattr("gradex_fast.bench.turns.time.perf_counter", lambda: now[0])

    def spend(name: str, seconds: float):
        def call() -> None:
            order.append(name)
            now[0] += seconds

        return call

    cases = {"a": [spend("a0", 1.0), spend("a1", 1.0)], "b": [spend("b", 3.0)]}
    found = in_rounds(cases, "cpu", rounds=5, seconds=100.0)
    assert found == {"a": [1.0] * 5, "b": [3.0] * 5}
    assert order == ["a0", "a1", "a0", "b", "b", *["a1", "b", "a0", "b"] * 2, "a1", "b"]
    assert {name: len(each) for name, each in in_rounds(cases, "cpu", rounds=5, seconds=4.0).items()} == {
        "a": 2,
        "b": 2,
    }
    assert len(in_rounds(cases, "cpu", rounds=5, seconds=0.5)["a"]) == 1
    order.clear()
    assert in_rounds({"s": [spend("s", 1e-9)]}, "cpu", rounds=2)["s"] == pytest.approx([1e-9] * 2)
    assert len(order) == 2 + 2 * MOST_CALLS


def test_inputs_rotate_through_more_than_the_cache():
    shape = Shape(2, 4, 8, 8, torch.float32)
    assert shape.bytes_read == sum(tensor.nbytes for tensor in shape.tensors("cpu"))
    assert (shape.sets(10 * shape.bytes_read), shape.sets(1), shape.sets(1 << 40)) == (10, 2, 64)


def test_a_spread_has_its_quartiles():
    spread = Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.minimum, spread.lower, spread.median, spread.upper, spread.maximum) == (1, 2, 3, 4, 5)


ONE_BYTE = Work(1.0, 0.0)


def recorded(spent: dict[str, list[float]], work: Work = ONE_BYTE, base: str | None = None, **about) -> Results:
    """Results of one group, as if it had been measured."""
    known = {"date": "2026-01-01", "machine": {"cores": 2, "cpu": "x"}, "versions": {"torch": "1"}, "load": 0.0}
    record = Record({**known, "dtype": "float32", "parameters": None, "trained": None, **about}, BenchSettings(**SMALL))
    record.ceilings("cpu", CEILINGS)
    record.ceilings("cpu", CEILINGS)
    cases = tuple(Case(name, work, {"units": 4.0}) for name in spent)
    record.add(Group("pass", cases, dict, base=base), spent)
    return record.results(complete=True)


def test_ratios_are_of_the_same_round():
    """The machine slows down by ten in the middle: the ratio of every round is 2 all the same."""
    found = recorded({"plain": [1.0, 10.0, 1.0], "sketch": [2.0, 20.0, 2.0]}, base="plain")
    (ratio,) = found.ratios
    assert (ratio.name, ratio.to, ratio.ratio.minimum, ratio.ratio.maximum) == ("sketch", "plain", 2.0, 2.0)


def test_a_change_is_marked_where_the_quartiles_do_not_overlap():
    spent = {"same": [1.0, 1.1, 1.2, 1.3], "slower": [1.0, 1.1, 1.0, 1.1], "faster": [2.0, 2.1, 2.2], "gone": [1.0] * 3}
    later = {"same": [1.2, 1.3, 1.1, 1.25], "slower": [1.2, 1.3, 1.2, 9.0], "faster": [1.0, 1.1, 1.9], "new": [1.0] * 3}
    found = compare(recorded(spent), recorded(later))
    changes = {each.name: each.change for each in found.cases if each.part != "ceilings"}
    assert changes == {"same": "same", "slower": "slower", "faster": "faster"}
    assert (found.only_first, found.only_second, found.warnings) == (("gone",), ("new",), ())
    assert next(each.ratio for each in found.cases if each.name == "faster") == pytest.approx(1.1 / 2.1)
    assert {each.change for each in found.cases if each.part == "ceilings"} == {None}
    few = compare(recorded({"a": [1.0, 1.0]}), recorded({"a": [2.0, 2.0]}))
    assert few.cases[-1].change == "unknown" and "fewer than 3 rounds" in few.warnings[0]


def test_what_differs_beside_the_code_is_said():
    first = recorded({"a": [1.0] * 3})
    other = {"machine": {"cores": 2, "cpu": "y"}, "versions": {"torch": "2"}, "load": 3.0, "dtype": "bfloat16"}
    second = recorded({"a": [1.0] * 3}, **other).model_copy(update={"complete": False})
    warnings = compare(first, second).warnings
    assert warnings == (
        "machine differ: cpu was x, then y",
        "versions differ: torch was 1, then 2",
        "settings differ: dtype was float32, then bfloat16",
        "the second was stopped before its end",
        "the second: the machine was busy: a load of 3.0 on 2 cores",
    )


def test_drifting_ceilings_are_said_and_the_best_counts():
    record = Record(
        {**recorded({}).model_dump(include={"date", "machine", "versions", "load", "dtype"})}, BenchSettings()
    )
    record.ceilings("cpu", {"bandwidth": 1e9, "float32": 1e10})
    record.ceilings("cpu", {"bandwidth": 2e9, "float32": 1.05e10})
    found = record.results(complete=True)
    assert found.warnings == ("the machine drifted: bandwidth (cpu) was 2.00 times as fast at the end",)
    assert record.floors(Work(bytes=4e9, flops=0.0)) == {"bandwidth": 2.0}


def test_ceilings_are_measured_and_positive(monkeypatch):
    monkeypatch.setattr(ceilings, "ARRAY", {"cpu": 1 << 12})
    monkeypatch.setattr(ceilings, "LARGEST_MATRIX", 256)
    monkeypatch.setattr(ceilings, "LARGEST_LIFT", 1 << 10)
    monkeypatch.setattr(ceilings, "ROUNDS", 1)
    found = ceilings.measure("cpu", ("gaussian", "rademacher", "tensorsketch"), 1)
    assert found.keys() == CEILINGS.keys() and all(0 < rate < math.inf for rate in found.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_named_configuration_makes_the_model_that_it_is_named_after(name):
    count = {
        "gpt2": 124_439_808,
        "llama-3-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
        "minilm": None,
        "tiny": None,
    }
    with recipe_of(name, adapter="full", dtype="bfloat16") as recipe:
        outline = load_outline(recipe)
    assert {parameter.dtype for parameter in outline.parameters()} == {torch.bfloat16}
    found = sum(parameter.numel() for parameter in outline.parameters())
    if name == "minilm":  # 22,713,216 of the encoder; pooler and head are its own
        assert found == 22_713_216 + 2 * (384 + 1)
    elif count[name]:
        assert found == count[name]


def test_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["tiny"] | {"n_layer": 3}))
    for name in (tmp_path, tmp_path / "config.json"):
        with recipe_of(str(name), adapter="full", dtype="float32") as recipe:
            assert sum("ln_1.weight" in n for n, _ in load_outline(recipe).named_parameters()) == 3


@pytest.mark.usefixtures("quick_ceilings")
def test_the_command_measures_all_parts_and_its_file_is_read_again(tmp_path, capsys):
    out = tmp_path / "found.json"
    several = ["--distributions", "gaussian", "tensorsketch"]
    assert main(["bench", *QUICK, *SOLVE, *several, "--json", str(out)]) == 0
    printed, spoken = capsys.readouterr()
    assert "\x1b" not in printed and "pass: plain pass, sketch pass, gaussian" in spoken
    found = Results.read(out)
    assert found.complete and found.settings.dim == 5 and found.trained < found.parameters
    names = {case.name: case for case in found.cases}
    assert {"sketch 256 × 16, gaussian", "sketch 16 × 64, tensorsketch", "project 2 × 4096, gaussian"} <= names.keys()
    assert {"lift 1 × 4096, gaussian", "plain pass", "sketch pass, gaussian", "pack 60 × 6"} <= names.keys()
    assert names["sketch 16 × 64, gaussian"].layers == 6
    assert {each.name for each in found.ratios} == {"sketch pass, gaussian", "sketch pass, tensorsketch"}
    for case in found.cases:
        spread = case.seconds
        assert 0 < spread.minimum <= spread.lower <= spread.median <= spread.upper <= spread.maximum
        assert case.share is None or case.share == pytest.approx(case.floor / spread.median)
    batch = names["solve 60 × 6, 4 subsets"]
    assert batch.rates["subsets"] == pytest.approx(4 / batch.seconds.median)
    assert "ms a subset" in printed and "all 16 layers' sketches, gaussian" in printed
    assert main(["bench", "--compare", str(out), str(out)]) == 0
    assert "slower" not in capsys.readouterr().out
    assert main(["bench", "--compare", str(out), str(out), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert {each["ratio"] for each in compared["cases"]} == {1.0} and compared["only_first"] == []


@pytest.mark.usefixtures("quick_ceilings")
def test_json_alone_is_on_stdout_and_fits_the_schema(capsys):
    schema = Results.model_json_schema()
    assert main(["bench", *QUICK, *SOLVE, "--parts", "solve", "--json"]) == 0
    printed, spoken = capsys.readouterr()
    found = json.loads(printed)
    assert spoken == "" and found.keys() == schema["properties"].keys()
    assert Results.model_validate(found).parameters is None


@pytest.mark.usefixtures("quick_ceilings")
def test_a_call_that_takes_too_long_is_left_out_and_the_rest_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(ceilings, "measure", lambda *_: CEILINGS | {"gaussian": 1e3})
    assert main(["bench", *QUICK, "--parts", "kernels", "--distributions", "gaussian", "rademacher", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in found["left_out"]} == {
        "sketch 256 × 16, gaussian",
        "sketch 16 × 256, gaussian",
        "sketch 192 × 16, gaussian",
        "project 2 × 4096, gaussian",
        "lift 1 × 4096, gaussian",
    }
    assert "at least" in found["left_out"][0]["why"]
    assert "sketch 256 × 16, rademacher" in {case["name"] for case in found["cases"]}
    monkeypatch.setattr(ceilings, "measure", lambda *_: dict.fromkeys(CEILINGS, 1e-3))
    assert main(["bench", *QUICK, "--parts", "kernels"]) == 2
    assert "nothing was measured" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_ceilings")
def test_memory_that_runs_out_costs_one_group(monkeypatch, capsys):
    real = Shape.rotating

    def full(shape: Shape, *arguments):
        if shape.q == 256:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return real(shape, *arguments)

    monkeypatch.setattr(Shape, "rotating", full)
    assert main(["bench", *QUICK, "--parts", "kernels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["left_out"]] == ["sketch 256 × 16, gaussian"]
    assert "memory ran out" in found["left_out"][0]["why"] and len(found["cases"]) == 6


@pytest.mark.usefixtures("quick_ceilings")
def test_a_model_that_is_refused_costs_its_pass_alone(monkeypatch, capsys):
    def refuse(*_, **__):
        raise GradexError("self-check: this model mixes the samples of a batch")

    monkeypatch.setattr(pass_cases, "Sketcher", refuse)
    assert main(["bench", *QUICK, "--parts", "kernels", "pass", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["left_out"]] == ["plain pass", "sketch pass, gaussian"]
    assert "mixes the samples" in found["left_out"][0]["why"] and len(found["cases"]) == 7 and found["complete"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "0"], "--rows: Input should be greater than or equal to 1, got 0"),
        (["--parts", "kernel"], "--parts: Input should be 'kernels', 'pass' or 'solve', got 'kernel'"),
        (["--model", "./nowhere"], "no such file or folder"),
        (["--model", "tiny", "--tokens", "2000"], "'tiny' has 1024 positions"),
        (["--model", "tiny", "--targets", "no_such_layer"], "no_such_layer"),
        (["--model", "tiny", "--rows", "100000000", "--parts", "pass"], "the part pass needs about"),
        (["--parts", "solve", "--samples", "1000000000000"], "the part solve needs about"),
        (["--json", "/no/such/folder/out.json"], "a file in a folder that exists"),
        (["--compare", "nothing.json", "nothing.json"], "cannot read nothing.json"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_measured(arguments, words, capsys, monkeypatch):
    monkeypatch.setattr(ceilings, "measure", lambda *_: pytest.fail("it began to measure"))
    assert main(["bench", *arguments]) == 2
    printed, error = capsys.readouterr()
    assert words in error and len(error.splitlines()) == 1 and printed == ""


def test_a_file_that_is_no_result(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(recorded({}).model_dump(mode="json") | {"format": 2}))
    assert main(["bench", "--compare", str(path), str(path)]) == 2
    assert "is no result of gradex-fast bench: format: Input should be 1" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_ceilings")
def test_what_was_measured_before_an_interruption_is_kept(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradex_fast.bench.run.pass_groups", interrupted)
    out = tmp_path / "found.json"
    assert main(["bench", *QUICK, "--parts", "kernels", "pass", "--json", str(out), "--quiet"]) == 130
    assert capsys.readouterr().err == f"gradex-fast: stopped; {out} has what was measured\n"
    found = Results.read(out)
    assert not found.complete and len(found.cases) == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_without_a_gpu(capsys):
    assert main(["bench", "--device", "cuda"]) == 2
    assert "device 'cuda' cannot be used" in capsys.readouterr().err
    if not fits.native.CUDA_BUILT:
        with pytest.raises(GradexError, match="built without CUDA"):
            fits.require_kernels("cuda")


def test_a_comparison_loads_no_torch():
    command = [sys.executable, "-X", "importtime", "-m", "gradex_fast", "bench", "--compare", "a.json", "b.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and "cannot read a.json" in done.stderr and " torch\n" not in done.stderr


def test_the_groups_of_a_pass_divide_by_the_plain_one():
    settings = BenchSettings(**SMALL)
    with recipe_of("tiny", dtype="float32") as recipe:
        (group,) = pass_groups(settings, recipe, "cpu")
        calls = group.make()
    assert group.base == PLAIN and calls.keys() == {case.name for case in group.cases}
    (sketch,) = calls["sketch pass, gaussian"]
    assert sketch().g.shape == (2, 5)

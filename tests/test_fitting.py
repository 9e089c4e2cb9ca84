"""Batches fit: within a budget of memory, halved when memory runs out, and a row that never fits is named."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import TOLERANCE, error
from tiny import bert, gpt2, llama, random_batch, random_examples, with_lora

from gradex_fast.batch import collate
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.fitting import Budget, in_batches
from gradex_fast.memory import out_of_memory
from gradex_fast.sketch import Sketcher, sketch_examples
from gradex_fast.types import Example

LENGTHS = [9, 3, 16, 4, 9, 12, 5, 8, 7, 16, 11, 2]
DIM = 6


class Small:
    """Forward pre-hook: the hardware of a model that holds so many padded tokens.

    Attributes: shapes: of every batch that was tried. fitted: of those that fitted.
    """

    def __init__(self, model: torch.nn.Module, tokens: int, kind: type[Exception] = torch.cuda.OutOfMemoryError):
        self.tokens, self.kind, self.shapes, self.fitted = tokens, kind, [], []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model, arguments, named) -> None:
        shape = tuple(named["input_ids"].shape)
        self.shapes.append(shape)
        if shape[0] * shape[1] > self.tokens:
            raise self.kind("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1 byte")
        self.fitted.append(shape)


@pytest.mark.parametrize("kind", [torch.cuda.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered(kind, caplog):
    model, examples = with_lora(gpt2()), random_examples(LENGTHS)
    whole = sketch_examples(Sketcher(model, dim=DIM), examples, pad_id=0, batch_tokens=1000)
    hardware, budget, advanced = Small(model, 40, kind), Budget(1000), []
    stage = type("Stage", (), {"advance": lambda self, amount: advanced.append(amount)})()
    with caplog.at_level(logging.WARNING, logger="gradex_fast"):
        options = {"pad_id": 0, "batch_tokens": budget, "stage": stage}
        found = sketch_examples(Sketcher(model, dim=DIM), examples, **options)
        tried = len(hardware.shapes)
        again = sketch_examples(Sketcher(model, dim=DIM), examples, **options)
    assert error(found.g, whole.g) <= TOLERANCE and np.array_equal(found.g, again.g)
    np.testing.assert_allclose(found.margin, whole.margin, rtol=TOLERANCE, atol=TOLERANCE)
    assert hardware.shapes[:4] == [(12, 16), (6, 16), (3, 16), (1, 16)]
    assert hardware.fitted == [shape for shape in hardware.shapes if shape[0] * shape[1] <= 40]
    assert hardware.shapes[tried:] == hardware.fitted[-len(hardware.shapes[tried:]) :]  # none was tried in vain
    assert sum(advanced) == 2 * len(examples)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("gradex_fast")]
    assert said == ["memory ran out: from now on a batch has at most 24 padded tokens"]


def test_memory_that_runs_out_late_in_the_backward_pass_leaves_nothing_behind():
    """The taps go, the parameters train again, and no row counts twice."""
    model, examples = llama(), random_examples(LENGTHS)
    whole = sketch_examples(Sketcher(model, dim=DIM), examples, pad_id=0, batch_tokens=1000)
    sketcher, trained = Sketcher(model, dim=DIM), [p.requires_grad for p in model.parameters()]

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            if len(gradient) > 2:
                raise torch.cuda.OutOfMemoryError("none left")
            return gradient

    hook = model.model.layers[0].register_forward_hook(lambda _, __, output: Fails.apply(output))
    found = sketch_examples(sketcher, examples, pad_id=0, batch_tokens=1000)
    hook.remove()
    assert error(found.g, whole.g) <= TOLERANCE
    assert [p.requires_grad for p in model.parameters()] == trained
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_row_that_does_not_fit_by_itself_is_named():
    model, examples = gpt2(), random_examples(LENGTHS)
    Small(model, 15)
    with pytest.raises(GradexError, match=r"^sample s/2 of 16 tokens does not fit in memory by itself \(.*max_length"):
        sketch_examples(Sketcher(model, dim=DIM), examples, pad_id=0, batch_tokens=1000)
    with pytest.raises(GradexError, match=r"^sample s/2 of 16 tokens"):
        evaluate(model, examples, pad_id=0, batch_tokens=1000)


def test_other_errors_stop_the_run():
    model, examples = gpt2(), random_examples(LENGTHS)
    examples[4].input_ids[0] = 999
    with pytest.raises(IndexError):
        sketch_examples(Sketcher(model, dim=DIM), examples, pad_id=0, batch_tokens=1000)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) and not out_of_memory(
        KeyError()
    )


def test_an_evaluation_fits_too():
    model, examples = gpt2(), random_examples(LENGTHS)
    whole = evaluate(model, examples, pad_id=0, batch_tokens=1000)
    Small(model, 40)
    found = evaluate(model, examples, pad_id=0, batch_tokens=1000)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-6)
    assert found.correct.tolist() == whole.correct.tolist()


@pytest.mark.parametrize("memory", [1, 300_000, 1_000_000, None])
def test_a_budget_of_memory_bounds_the_batches(memory):
    model, examples, most = gpt2(), random_examples(LENGTHS), 0
    hardware, sketcher = Small(model, 10**9), Sketcher(model, dim=DIM)
    sketcher(random_batch("gpt2"))  # the self-check of the first batch is over
    hardware.shapes.clear()
    sketch_examples(sketcher, examples, pad_id=0, batch_tokens=Budget(150, memory))
    weighed, *shapes = hardware.shapes if memory else [(1, 16), *hardware.shapes]
    assert weighed == (1, 16) and sum(rows for rows, _ in shapes) == len(examples)
    for rows, length in shapes:
        needed = sketcher.bytes_needed(collate(random_examples([length] * rows), 0))
        assert rows == 1 or (rows * length <= 150 and needed <= (memory or needed))
        most = max(most, rows * length)
    assert {1: most == 16, 300_000: 32 < most < 100, 1_000_000: most > 100, None: most > 100}[memory]


@pytest.mark.parametrize("build", [gpt2, llama, bert])
def test_what_a_pass_needs_grows_with_its_rows(build):
    sketcher = Sketcher(build(), dim=DIM)
    two, eight = (sketcher.bytes_needed(random_batch(build.__name__, samples=n, length=8)) for n in (2, 8))
    assert 3.5 * two <= eight <= 4.0 * two  # positions, for one, all rows share


def test_the_heaviest_row_is_weighed_with_the_most_labels():
    long, full = random_examples([16], supervised=1)[0], random_examples([8], supervised=7)[0]
    weighed: list[Example] = []
    in_batches([full, long], Budget(100, 1000), lambda rows: None, lambda example: weighed.append(example) or 10)
    assert len(weighed[0].input_ids) == 16 and weighed[0].supervised == 7


SCRIPT = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from transformers import LlamaConfig, LlamaForCausalLM
from oracle import TOLERANCE, error
from tiny import random_examples, with_lora
from gradex_fast.fitting import Budget
from gradex_fast.sketch import Sketcher, sketch_examples

torch.manual_seed(0)
sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
model = with_lora(LlamaForCausalLM(LlamaConfig(vocab_size=20_000, max_position_embeddings=32, **sizes)))
examples, sketcher = random_examples([16] * 128, supervised=15), Sketcher(model, dim=6)
small = sketch_examples(sketcher, examples, pad_id=0, batch_tokens=64)
size = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (size + 120 * 2**20,) * 2)  # the logits of all rows: 146 MiB
budget = Budget(128 * 16)
found = sketch_examples(sketcher, examples, pad_id=0, batch_tokens=budget)
assert error(found.g, small.g) <= TOLERANCE, error(found.g, small.g)
print(budget.tokens)
"""


def test_memory_that_really_runs_out():
    tests = Path(__file__).parent
    environment = {"PYTHONPATH": f"{tests}:{tests.parent}", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert 64 <= int(done.stdout) <= 1024
    assert done.stderr.count("memory ran out") == 1

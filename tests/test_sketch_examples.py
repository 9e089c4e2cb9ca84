"""Many rows: in their order, whatever their batches; one that is not finite is named and harms no other."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import TOLERANCE, error
from tiny import gpt2, llama, random_examples, with_lora

from gradex_fast.batch import collate, length_batches
from gradex_fast.errors import GradexError
from gradex_fast.sketch import Sketcher, nonfinite_rows, sketch_examples
from gradex_fast.types import UNSUPERVISED

DIM = 6


@pytest.mark.parametrize("tokens", [1, 24, 1000])
def test_batches_hold_every_row_once_and_so_many_tokens(tokens):
    lengths = [9, 3, 16, 4, 9, 12, 5]
    batches = length_batches(lengths, tokens)
    assert sorted(row for rows in batches for row in rows) == list(range(7))
    assert all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= tokens for rows in batches)
    assert len(batches) == {1: 7, 24: 4, 1000: 1}[tokens]


class Counter:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int = 1, detail: str = "") -> None:
        self.done += amount


def test_many_examples_keep_their_order():
    sketcher, examples, stage = Sketcher(gpt2(), dim=DIM), random_examples([9, 3, 16, 4, 9, 12, 5]), Counter()
    together = sketch_examples(sketcher, examples, pad_id=0, batch_tokens=24, stage=stage)
    assert stage.done == len(together) == 7
    for row, example in enumerate(examples):
        alone = sketcher(collate([example], pad_id=0))
        assert error(together.g[row : row + 1], alone.g) <= TOLERANCE
        np.testing.assert_allclose([together.margin[row], together.loss[row]], [alone.margin[0], alone.loss[0]], 1e-6)


def test_padding_hides_no_token_that_equals_the_pad_token():
    examples = random_examples([4, 6])
    examples[0].input_ids[:] = 1
    batch = collate(examples, pad_id=1)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch["labels"][0].tolist() == [*examples[0].labels, UNSUPERVISED, UNSUPERVISED]
    assert batch["input_ids"][1].tolist() == examples[1].input_ids.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_names_its_sample(value):
    model, examples = with_lora(llama()), random_examples([6, 9, 7, 9, 8])
    for index, example in enumerate(examples):
        example.input_ids[:] = np.where(example.input_ids == 5, 6, example.input_ids)
        example.input_ids[2] = 5 if index == 3 else 7
    whole = sketch_examples(Sketcher(model, dim=DIM), examples, pad_id=0, batch_tokens=50)
    model.get_input_embeddings().weight.data[5] = value
    sketcher, options = Sketcher(model, dim=DIM), {"pad_id": 0, "batch_tokens": 50}
    with pytest.raises(GradexError, match=r"^the gradient of sample s/3 is not finite \(1 in its batch\).*skip$"):
        sketch_examples(sketcher, examples, **options)
    found = sketch_examples(sketcher, examples, skip_nonfinite=True, **options)
    assert nonfinite_rows(found).tolist() == [3]
    kept = [0, 1, 2, 4]
    assert np.array_equal(found.g[kept], whole.g[kept]) and np.array_equal(found.margin[kept], whole.margin[kept])

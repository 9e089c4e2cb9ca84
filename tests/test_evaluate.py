"""Losses are those of single rows; a row is right if, and only if, greedy decoding writes its completion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import oracle
from tiny import MODELS, bert, gpt2, random_examples

from gradex_fast.batch import collate
from gradex_fast.evaluate import evaluate
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import train
from gradex_fast.types import UNSUPERVISED, Example


class Silent:
    def advance(self, amount: int = 1, detail: str = "") -> None:
        pass


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_losses_equal_those_of_single_rows(name):
    model, examples = MODELS[name]().train(), random_examples([9, 3, 16, 4, 9, 12, 5])
    found = evaluate(model, examples, pad_id=0, batch_tokens=40)
    assert model.training
    truth = [oracle(model, collate([example], 0), "loss")[2][0] for example in examples]
    np.testing.assert_allclose(found.loss, truth, rtol=1e-6)


def test_right_is_what_greedy_decoding_writes(tmp_path):
    """Half of the rows are learnt, the others are not."""
    model, examples = gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), random_examples([8, 10, 9, 12] * 6)
    recipe = TrainRecipe(epochs=60, batch_size=12, learning_rate=1e-2, checkpoints=0)
    train(model, examples[:12], recipe, pad_id=0, folder=tmp_path / "t", seed=0, stage=Silent())
    correct = evaluate(model, examples, pad_id=0, batch_tokens=60).correct
    written = [writes(model, example) for example in examples]
    assert correct.tolist() == written
    assert sum(written[:12]) >= 10 and sum(written[12:]) <= 2


def writes(model: torch.nn.Module, example: Example) -> bool:
    """Greedy decoding, one token after another, in a loop of its own."""
    begin = int(np.flatnonzero(example.labels != UNSUPERVISED)[0])
    ids = torch.as_tensor(example.input_ids)[None, :begin].long()
    with torch.no_grad():
        while ids.shape[1] < len(example.input_ids):
            ids = torch.cat([ids, model.eval()(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    return ids[0].tolist() == example.input_ids.tolist()


def test_a_classifier_is_right_where_its_class_is_the_likeliest():
    model, rows = bert(), random_examples([5, 9, 7, 9, 6, 8])
    ids = [torch.as_tensor(row.input_ids)[None].long() for row in rows]
    likeliest = [int(model.eval()(input_ids=row).logits.argmax()) for row in ids]
    labels = [(best + shift) % 3 for best, shift in zip(likeliest, [0, 1, 0, 2, 0, 1], strict=True)]
    examples = [Example(r.id, r.input_ids, np.array([c], np.int32), "0") for r, c in zip(rows, labels, strict=True)]
    found = evaluate(model, examples, pad_id=0, batch_tokens=20)
    assert found.correct.tolist() == [True, False, True, False, True, False]

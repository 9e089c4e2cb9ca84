"""The head sees supervised positions only, and every loss is that of all positions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracle import TOLERANCE, error, oracle, sketched
from peft import LoraConfig, get_peft_model
from test_selfcheck import Decoder
from tiny import MODELS, VOCABULARY, adapted, gpt2, random_batch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
)

from gradex_fast import head
from gradex_fast.losses import token_losses
from gradex_fast.sketch import Sketcher
from gradex_fast.types import UNSUPERVISED

LANGUAGE_MODELS = [name for name in MODELS if name != "bert"]


def at_all_positions(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and right [n, t] by the model's own forward pass."""
    labels, encodes = batch["labels"], model.config.is_encoder_decoder
    logits = model(**{key: value for key, value in batch.items() if encodes or key != "labels"}).logits.float()
    if not encodes:
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=UNSUPERVISED)
    return losses, logits.argmax(-1) == labels


def assert_equals_all_positions(model, batch, most: int | None) -> None:
    """`most`: positions that the head may see; None where it needs all."""
    model.eval()
    whole, whole_right = at_all_positions(model, batch)
    seen, out = [], model.get_output_embeddings()
    hook = out.register_forward_hook(lambda _, __, output: seen.append(output.shape))
    with torch.no_grad():
        losses, supervised, right = token_losses(model, batch)
    hook.remove()
    if most is not None:
        assert [shape[:2] for shape in seen] == [(len(losses), most)]
    truth = batch["labels"] if model.config.is_encoder_decoder else batch["labels"][:, 1:]
    for row, kept in enumerate(truth != UNSUPERVISED):
        torch.testing.assert_close(losses[row][supervised[row]], whole[row][kept], rtol=TOLERANCE, atol=TOLERANCE)
        assert torch.equal(right[row][supervised[row]], whole_right[row][kept])
    assert losses.shape[1] == max(1, int((truth != UNSUPERVISED).sum(1).max()))
    assert (losses[~supervised] == 0).all()


def assert_equals_the_oracle(model, batch) -> None:
    gradients, _, _ = oracle(model, batch, "sequence")
    assert error(Sketcher(model, dim=6)(batch).g, sketched(gradients, 6)) <= TOLERANCE


def most_supervised(batch) -> int:
    return int((batch["labels"] != UNSUPERVISED).sum(1).max())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("adapter", ["full", "all"])
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_losses_are_those_of_all_positions(name, adapter, side):
    batch = random_batch(name, side=side)
    assert_equals_all_positions(adapted(name, adapter), batch, most_supervised(batch))


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_batch_without_a_label_costs_one_position(name):
    batch = random_batch(name)
    batch["labels"][:] = UNSUPERVISED
    assert_equals_all_positions(MODELS[name](), batch, 1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("trained", [{"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}])
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_an_adapted_or_trained_head_under_an_adapter(name, trained, side):
    """A copy of the head that is trained, or LoRA on it; B is not zero."""
    options = {"target_modules": ["q" if name == "t5" else "q_proj" if name == "llama" else "c_attn"]} | trained
    model = get_peft_model(MODELS[name](), LoraConfig(r=3, **options))
    for parameter in (p for key, p in model.named_parameters() if "lora_B" in key):
        torch.nn.init.normal_(parameter, std=0.2)
    batch = random_batch(name, side=side)
    assert_equals_all_positions(model, batch, most_supervised(batch))
    assert_equals_the_oracle(model, batch)


SMALL = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 32}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}


def gemma2():
    """Caps its logits softly, after the head."""
    config = Gemma2Config(vocab_size=VOCABULARY, **SMALL, **HEADS, final_logit_softcapping=0.5, sliding_window=16)
    return Gemma2ForCausalLM(config)


def cohere():
    """Scales its logits, after the head."""
    return CohereForCausalLM(CohereConfig(vocab_size=VOCABULARY, **SMALL, num_attention_heads=2, logit_scale=3.0))


@pytest.mark.parametrize("build", [gemma2, cohere])
def test_what_comes_after_the_head_stays(build):
    torch.manual_seed(0)
    model, batch = build(), random_batch("gpt2")
    assert_equals_all_positions(model, batch, most_supervised(batch))
    assert_equals_the_oracle(model, batch)


def test_an_encoder_decoder_that_must_be_given_labels():
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 20, "decoder_ffn_dim": 20}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
    config = M2M100Config(vocab_size=VOCABULARY, **sizes, **heads, decoder_start_token_id=0, pad_token_id=0)
    model = M2M100ForConditionalGeneration(config)
    assert not hasattr(model, "prepare_decoder_input_ids_from_labels")
    assert_equals_all_positions(model, random_batch("t5"), None)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_the_model_forms_no_loss_of_its_own(name):
    model, losses = MODELS[name](), []
    model.register_forward_hook(lambda _, __, output: losses.append(output.loss))
    token_losses(model, random_batch(name))
    assert losses == [None]


class Headed(Decoder):
    """A toy that says which its head is."""

    calls = 0

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask):
        self.calls += 1
        return SimpleNamespace(logits=self.logits(self.middle(self.embedding(input_ids)).tanh()))

    def logits(self, hidden):
        return self.head(hidden)


class InTwoPieces(Headed):
    def logits(self, hidden):
        return torch.cat([self.head(hidden[:, :4]), self.head(hidden[:, 4:])], 1)


class Twice(Headed):
    def logits(self, hidden):
        return self.head(hidden) + self.head(hidden.flip(1))


class Flat(Headed):
    def logits(self, hidden):
        return self.head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])


class ByName(Headed):
    def logits(self, hidden):
        return self.head(input=hidden)


class BehindItsBack(Headed):
    def logits(self, hidden):
        return hidden @ self.head.weight.T + self.head.bias


class PositionsAfterwards(Headed):
    """Adds something that has as many positions as the input."""

    def logits(self, hidden):
        return self.head(hidden) + hidden.mean(-1, keepdim=True)


class Headless(Headed):
    def get_output_embeddings(self):
        return None


ALL_POSITIONS = [InTwoPieces, Twice, Flat, ByName, BehindItsBack, PositionsAfterwards, Headless]


@pytest.mark.parametrize("kind", ALL_POSITIONS)
def test_a_head_that_is_used_otherwise_keeps_all_positions(kind):
    model, batch = kind(), random_batch("gpt2")
    whole, _ = at_all_positions(model, batch)
    for _ in range(2):
        before, (losses, supervised, _) = model.calls, token_losses(model, batch)
        kept = batch["labels"][:, 1:] != UNSUPERVISED
        torch.testing.assert_close(losses[supervised], whole[kept], rtol=TOLERANCE, atol=TOLERANCE)
    assert model.calls - before == 1  # found out at the first batch, if at all
    assert not model.head._forward_pre_hooks


def test_the_second_call_of_a_head_is_not_taken_for_the_first():
    """As many positions as the input has, in another order: no shape tells."""

    class TriesFirst(Headed):
        def logits(self, hidden):
            self.head(hidden)
            return self.head(hidden)

    model, batch = TriesFirst(), random_batch("gpt2", length=4)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    found = head.logits_at(model, inputs, torch.tensor([[2, 0, 3, 1]] * 5), 4)
    assert torch.equal(found, model(**inputs).logits[:, [2, 0, 3, 1]])


def test_an_error_of_the_model_itself_is_not_hidden():
    model, batch = Headed(), random_batch("gpt2")
    batch["input_ids"][0, 0] = 99
    with pytest.raises(IndexError):
        token_losses(model, batch)
    assert model.calls == 1 and not model.head._forward_pre_hooks and model.head not in head._stubborn


def test_a_lack_of_memory_is_no_reason_to_form_all_logits():
    model = gpt2()
    model.lm_head.register_forward_hook(lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("none left")))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        token_losses(model, random_batch("gpt2"))
    assert model.lm_head not in head._stubborn

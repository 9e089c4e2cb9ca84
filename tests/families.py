"""The families that are supported, as real classes with tiny configurations and random weights."""

from __future__ import annotations

from dataclasses import dataclass

import transformers
from tiny import VOCABULARY, built, with_lora
from torch import nn

SIZES = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0}
NO_DROPOUT = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
ENCODER = {**SIZES, "num_labels": 3, "max_position_embeddings": 16}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}


@dataclass(frozen=True)
class Family:
    """A model class, its configuration, and the names of its attention's layers."""

    kind: str
    options: dict
    attention: tuple[str, ...]

    def build(self, **options) -> nn.Module:
        head = next(end for end in ("LMHeadModel", "For", "Model") if end in self.kind)
        config = getattr(transformers, f"{self.kind[: self.kind.index(head)]}Config")
        return built(getattr(transformers, self.kind), config(vocab_size=VOCABULARY, **{**self.options, **options}))


BART_SIZES = {"layers": 2, "attention_heads": 2, "ffn_dim": 20}
QKV = ("q_proj", "k_proj", "v_proj", "o_proj")
FAMILIES = {
    "bert": Family("BertForSequenceClassification", ENCODER, ("query", "value")),
    "roberta": Family(
        "RobertaForSequenceClassification", {**ENCODER, "pad_token_id": 0, "type_vocab_size": 1}, ("query", "value")
    ),
    "t5": Family("T5ForConditionalGeneration", {**T5, "tie_word_embeddings": True}, ("q", "v", "o")),
    "flan-t5": Family(
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ("q", "v", "o"),
    ),
    "gpt-neox": Family("GPTNeoXForCausalLM", {**SIZES, "max_position_embeddings": 32}, ("query_key_value",)),
    "gpt2": Family("GPT2LMHeadModel", {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}, ("c_attn",)),
    "bloom": Family("BloomForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 4}, ("query_key_value",)),
    "llama": Family("LlamaForCausalLM", {**GROUPED, "attention_bias": True}, QKV),
    "llama-tied": Family("LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": True}, QKV),
    "opt": Family(
        "OPTForCausalLM",
        {**SIZES, "ffn_dim": 20, "max_position_embeddings": 32, "word_embed_proj_dim": 16},
        ("q_proj", "k_proj", "v_proj", "out_proj"),
    ),
    "gpt-neo": Family(
        "GPTNeoForCausalLM",
        {
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "max_position_embeddings": 32,
        },
        ("q_proj", "v_proj"),
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        {**GROUPED, "head_dim": 4, "sliding_window": 4, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        QKV,
    ),
    "mistral": Family("MistralForCausalLM", {**GROUPED, "sliding_window": 4}, QKV),
    "qwen3": Family("Qwen3ForCausalLM", {**GROUPED, "head_dim": 4}, QKV),
    "mixtral": Family(
        "MixtralForCausalLM",
        {**GROUPED, "intermediate_size": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
        QKV,
    ),
    "qwen3-moe": Family(
        "Qwen3MoeForCausalLM",
        {**GROUPED, "head_dim": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        QKV,
    ),
}


def family(name: str, adapter: str = "full", **options) -> nn.Module:
    """`adapter`: "full", "all" (LoRA on every linear layer) or "attention"."""
    model = FAMILIES[name].build(**options)
    if adapter == "full":
        return model
    return with_lora(model, "all-linear" if adapter == "all" else list(FAMILIES[name].attention))


MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "intermediate_size": 16}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
SPARSE = {"num_experts": 3, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
BART = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in BART_SIZES.items()}
OTHERS = {
    "gemma": (Family("GemmaForCausalLM", {**GROUPED, "head_dim": 4}, QKV), ""),
    "phi3": (Family("Phi3ForCausalLM", GROUPED, ("qkv_proj",)), ""),
    "stablelm": (Family("StableLmForCausalLM", {**GROUPED, "qk_layernorm": True}, QKV), ""),
    "nemotron": (Family("NemotronForCausalLM", {**GROUPED, "head_dim": 4}, QKV), ""),
    "falcon": (Family("FalconForCausalLM", {**SIZES, "pad_token_id": 0}, ("query_key_value",)), ""),
    "gpt-oss": (Family("GptOssForCausalLM", {**GROUPED, **MOE, "head_dim": 4, "num_local_experts": 4}, QKV), "sinks"),
    "deepseek-v3": (
        Family(
            "DeepseekV3ForCausalLM",
            {
                **GROUPED,
                **MOE,
                **LATENT,
                "num_key_value_heads": 4,
                "n_routed_experts": 4,
                "n_group": 2,
                "topk_group": 1,
                "first_k_dense_replace": 1,
            },
            ("o_proj",),
        ),
        "",
    ),
    "switch": (
        Family("SwitchTransformersForConditionalGeneration", {**T5, **SPARSE}, ("q", "v")),
        "relative_attention_bias|expert_",
    ),
    "bart": (
        Family(
            "BartForConditionalGeneration",
            {
                **BART,
                "d_model": 16,
                "max_position_embeddings": 32,
                "scale_embedding": True,
                "decoder_start_token_id": 0,
            },
            ("q_proj",),
        ),
        "",
    ),
    "modernbert": (Family("ModernBertForSequenceClassification", {**ENCODER, "pad_token_id": 0}, ("Wqkv",)), ""),
    "deberta": (
        Family(
            "DebertaV2ForSequenceClassification",
            {**ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
            ("query_proj",),
        ),
        "pos_|rel_embeddings",
    ),
    "mamba": (
        Family("MambaForCausalLM", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}, ("in_proj",)),
        "A_log|mixer.D|conv1d|dt_proj",
    ),
}
"""More of them, and words in the names of those of their parameters that have no tap."""

NO_SDPA = {"bloom", "gpt-neo", "gemma2"}
"""transformers has no SDPA for them."""


def batch_of(name: str) -> str:
    """Which batch of `tiny.random_batch` the family takes."""
    kind = (FAMILIES.get(name) or OTHERS[name][0]).kind
    return "bert" if "Classification" in kind else "t5" if "Conditional" in kind else name

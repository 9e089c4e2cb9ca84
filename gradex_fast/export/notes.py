"""What a reader of an export should know: what the tool does otherwise than the run did."""

from __future__ import annotations

from gradex_fast.export.mixture import Mixture


def of_rows(mixture: Mixture) -> list[str]:
    """True of any tool."""
    if not (cut := mixture.cut):
        return []
    data = mixture.recipe.data
    end = {"left": "start", "right": "end"}[data.truncation_side]
    return [f"rows of more than {data.max_length} tokens: {cut}, which the run cut at the {end}; here they are whole"]


def of_training(mixture: Mixture) -> list[str]:
    """True of any trainer."""
    model, found = mixture.recipe.model, []
    if mixture.recipe.train.packing:
        found.append("train.packing is left off: a packed step of this tool holds other rows than the run's")
    if model.device_map:
        found.append("model.device_map is left out: the launcher of this tool spreads the model")
    if model.adapter_dtype != "float32":
        found.append(f"model.adapter_dtype={model.adapter_dtype} is left off: this tool chooses its adapters' type")
    if model.quantization == "8bit":
        found.append("8bit: this tool keeps columns of outliers in 16 bits, the run has none (llm_int8_threshold 0)")
    return found


def of_the_cut(mixture: Mixture, tool: str) -> list[str]:
    """Of a tool that cannot cut a row at its start."""
    left = mixture.cut and mixture.recipe.data.truncation_side == "left"
    return [f"data.truncation_side is left, but {tool} cuts no row at its start"] if left else []

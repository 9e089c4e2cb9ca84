"""The extra `pipeline`: what recipes and commands need beyond torch and NumPy, and what to say where it is missing."""

from __future__ import annotations

PIPELINE = {
    "transformers": ("transformers", ("AutoModelForCausalLM", "Trainer")),
    "peft": ("peft", ("get_peft_model",)),
    "accelerate": ("accelerate", ("Accelerator",)),
    "datasets": ("datasets", ("load_dataset",)),
    "tokenizers": ("tokenizers", ("Tokenizer",)),
    "safetensors": ("safetensors.torch", ()),
    "psutil": ("psutil", ()),
    "pyarrow": ("pyarrow.parquet", ()),
    "pydantic": ("pydantic", ()),
    "PyYAML": ("yaml", ()),
    "jinja2": ("jinja2", ()),
    "rich": ("rich.console", ()),
    "matplotlib": ("matplotlib.figure", ()),
    "zstandard": ("zstandard", ()),
}
"""The module of each package, and names that a lazy one only then imports in earnest."""

INSTALL = "pip install 'gradex_fast[pipeline]'"
_ROOTS = {module.split(".")[0] for module, _ in PIPELINE.values()}


def needed_for(error: ImportError) -> str | None:
    """What is to be installed, as the end of a sentence; None where the import failed for another reason.

    A package that is there, but too old for a name that is wanted of it, counts as missing.
    """
    if (error.name or "").split(".")[0] not in _ROOTS:
        return None
    absent = isinstance(error, ModuleNotFoundError)
    why = f"no module named {error.name}" if absent else str(error).splitlines()[0]
    return f"needs the extra `pipeline`: {INSTALL} ({why})"

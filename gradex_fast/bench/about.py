"""Where and with what was measured: the fields of `Results` that are known before anything is."""

from __future__ import annotations

import datetime
import os
from typing import Any

import psutil
import torch
from torch import nn

from gradex_fast import native
from gradex_fast.doctor.machine import cores, cpu_name
from gradex_fast.modules import trainable
from gradex_fast.workspace import versions


def about(device: str, dtype: str, outline: nn.Module | None) -> dict[str, Any]:
    """Of this process on the device; `outline`: of the model, where a part needs one."""
    machine = {
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "instruction_set": native.instruction_set(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "dtype": dtype,
        "parameters": outline and sum(parameter.numel() for parameter in outline.parameters()),
        "trained": outline and sum(parameter.numel() for parameter in trainable(outline).values()),
    }

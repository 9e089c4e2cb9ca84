"""A process that splits its parameters on the CPU, and how accelerate's launcher would have started it."""

from __future__ import annotations

import os
from pathlib import Path

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

EXAMPLE = Path(__file__).parents[1] / "examples" / "accelerate" / "fsdp2.yaml"


def launched() -> dict[str, str]:
    """What accelerate's launcher puts into the environment of a process that it starts by the example."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(["--config_file", str(EXAMPLE), "-m", "gradex_fast"])
    found = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    return {name: value for name, value in found.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def on_the_cpu() -> None:
    """From now on parameters are split on the CPU too, as torch can, and accelerate does not ask it to.

    $PARTS/$RANK says how many numbers of those that an optimiser changes are here, and how many there are.
    """
    plain = AcceleratorState.__init__

    def opened(self, *given, fsdp_plugin=None, **named):
        plain(self, *given, fsdp_plugin=fsdp_plugin, **named)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = self.distributed_type  # as the end of `plain` does

    def note(optimizer, *_):
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        parts = [parameter.to_local() for parameter in trained if isinstance(parameter, DTensor)]
        here, whole = sum(part.numel() for part in parts), sum(parameter.numel() for parameter in trained)
        Path(os.environ["PARTS"], os.environ["RANK"]).write_text(f"{here} {whole}")

    AcceleratorState.__init__ = opened
    register_optimizer_step_pre_hook(note)


def broken_on_the_cpu() -> None:
    """The same; every step leaves NaN in the second process's part of a parameter. $PARTS/said-$RANK: what it says."""
    on_the_cpu()
    os.dup2(os.open(Path(os.environ["PARTS"], f"said-{os.environ['RANK']}"), os.O_CREAT | os.O_WRONLY), 2)

    def spoil(optimizer, *_):
        optimizer.param_groups[0]["params"][-1].detach().to_local().fill_(float("nan"))

    if os.environ["RANK"] == "1":
        register_optimizer_step_post_hook(spoil)

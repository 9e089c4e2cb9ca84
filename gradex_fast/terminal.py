"""What a command prints: JSON and nothing else, or a page for people."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from typing import Any


def show(value: Any, pretty: Callable[[Any, Any], None], options: argparse.Namespace) -> None:
    """On stdout: JSON and nothing else, or what `pretty` prints to a console."""
    if options.json:
        print(json.dumps(value, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        pretty(value, Console())


def say(console: Any, line: str) -> None:
    """A line as it is: no markup, no colours, no folding."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def calm_libraries() -> None:
    """Our progress says what is going on; the libraries' own bars and advice would tear it apart."""
    import warnings

    import datasets
    import transformers

    transformers.logging.set_verbosity_warning()
    transformers.logging.disable_default_handler()  # to run.log alone
    transformers.logging.add_handler(logging.NullHandler())
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", module=r"torch\.utils\.data|transformers|peft")

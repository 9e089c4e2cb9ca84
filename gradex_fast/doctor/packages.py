"""Python and packages: whether they are there, new enough, and can be imported, which an installed one need not be."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from gradex_fast.doctor.line import Line, first_line
from gradex_fast.extras import INSTALL, PIPELINE

NEEDED = {"numpy": ("numpy", ()), "torch": ("torch", ())}
"""The module of each package, and names that a lazy one only then imports in earnest."""

OPTIONAL = {
    "scikit-learn": ("sklearn.cluster", "clusters of raw rows, SubsetLogisticRegression"),
    "bitsandbytes": ("bitsandbytes", "quantised base models"),
    "trl": ("trl", "training on an export"),
}


def package_lines() -> Iterator[Line]:
    yield Line("python", platform.python_version())
    limits = _limits()
    yield _own(limits)
    for name, (module, names) in (NEEDED | (PIPELINE if _installed("transformers") else {})).items():
        yield _needed(name, module, names, (limits or {}).get(name.lower(), ""))
    if not _installed("transformers"):
        yield _plain()
    for name, (module, what) in OPTIONAL.items():
        yield _optional(name, module, what)


def _plain() -> Line:
    """Without transformers nobody has asked for the pipeline."""
    absent = ", ".join(name for name in PIPELINE if not _installed(name))
    found = f"not installed, only kernels, sketches and searches: without {absent}"
    return Line("pipeline", found, "note", f"for recipes and commands: {INSTALL}")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _limits() -> dict[str, str] | None:
    """By package, the versions that gradex_fast asks for, such as ``>=2.4``; None where it is not installed."""
    try:
        lines = requires("gradex_fast") or ()
    except PackageNotFoundError:
        return None
    lines = [line for line in lines if "extra ==" not in line or re.search(r"extra == .pipeline\b", line)]
    parts = [re.match(r"([\w.-]+)\s*([^;]*)", line) for line in lines]
    return {part[1].lower(): part[2].strip() for part in parts if part}


def _own(limits: dict[str, str] | None) -> Line:
    if limits is None:
        return Line("gradex_fast", "not installed", "wrong", "in its checkout: pip install -e '.[pipeline]'")
    return Line("gradex_fast", version("gradex_fast"))


def _needed(name: str, module: str, names: tuple[str, ...], limit: str) -> Line:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Line(name, "missing", "wrong", f"pip install '{name}{limit}'")
    if not _allows(limit, found):
        return Line(name, f"{found}, but gradex_fast needs {limit}", "wrong", f"pip install '{name}{limit}'")
    if broken := _broken(module, names):
        return Line(
            name, f"{found} cannot be imported ({broken})", "wrong", f"pip install --force-reinstall '{name}{limit}'"
        )
    return Line(name, found)


def _optional(name: str, module: str, what: str) -> Line:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Line(name, f"missing: needed for {what} only", "note", f"pip install {name}")
    if broken := _broken(module, ()):
        advice = f"pip install --force-reinstall {name}, or remove it"
        return Line(name, f"{found} cannot be imported ({broken})", "wrong", advice)
    return Line(name, found)


def _broken(module: str, names: tuple[str, ...]) -> str:
    try:
        loaded = import_module(module)
        for each in names:
            getattr(loaded, each)
    except Exception as error:  # whatever a package raises while it is imported
        return first_line(error)
    return ""


def _allows(limit: str, found: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(limit).contains(found, prereleases=True)

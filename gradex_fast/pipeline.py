"""The algorithm in order: prepare, meta-train, sketch, (cluster,) estimate, select, fine-tune, report.

Stages exchange arrays, and this page carries them. Each stage keeps what it made in the run's directory and, called
again, goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite, log

import numpy as np

from gradex_fast.accounts import searched
from gradex_fast.card import write_card
from gradex_fast.clusters import cut_into_clusters
from gradex_fast.data import load_corpus
from gradex_fast.errors import GradexError
from gradex_fast.estimate import RIDGES, STABLE, SubsetEstimator
from gradex_fast.evaluate import evaluate
from gradex_fast.finetuning import fine_tune, meta_train, true_loss
from gradex_fast.model import fingerprint, load_tokenizer
from gradex_fast.outputs import write_nonfinite, write_selection
from gradex_fast.preflight import check, device_of
from gradex_fast.progress import Reporter, Stage
from gradex_fast.ranks import ALONE, Ranks
from gradex_fast.recipe import Recipe
from gradex_fast.report import keep_summary, scores_csv, write_report
from gradex_fast.search import search
from gradex_fast.select import random_subsets
from gradex_fast.sketch import nonfinite_rows
from gradex_fast.sketching import Sketching, sketcher_of
from gradex_fast.state import Run
from gradex_fast.summary import rank_stability, summarise
from gradex_fast.types import Selection, Sketches
from gradex_fast.workspace import Workspace

STAGES = ("prepare", "meta", "sketch", "cluster", "estimate", "select", "finetune", "report")


def run(
    recipe: Recipe,
    *,
    until: str = "report",
    overwrite: bool = False,
    reporter: Reporter | None = None,
    compare: Mapping[str, Sequence[int]] | None = None,
    labels: Sequence[str] | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Carry out a recipe; called again, it goes on from where it stopped.

    Args:
        until: the last stage to run, one of `STAGES`.
        compare: other sets of sources, by name, to fine-tune and report beside the selected one. Where rows are cut
            into clusters, these are the sources here and in `labels`.
        labels: what the sources truly are, where that is known (the demo's "clean" and "noisy").
        ranks: which process of a job this is; None: as the environment says. The first one writes.

    Raises:
        GradexError: bad input, one line each; stages that were finished are kept.
    """
    with reporter or Reporter() as live:
        current = prepare(recipe, live, overwrite, ranks or Ranks.here())
        steps = {
            "meta": meta,
            "sketch": sketch,
            "cluster": cluster,
            "estimate": estimate,
            "select": select,
            "finetune": partial(finetune, compare=compare or {}),
            "report": partial(report, labels=labels),
        }
        for stage in STAGES[1 : STAGES.index(until) + 1]:
            steps[stage](current)
        if current.selection and current.ranks.leads:
            keep_summary(current.path, current.summary or summarise(current, labels))
    return current


def prepare(recipe: Recipe, reporter: Reporter, overwrite: bool = False, ranks: Ranks = ALONE) -> Run:
    """Read and tokenise the data, claim the run's directory."""
    if overwrite and ranks.count > 1:
        raise GradexError("--overwrite is for one process: others may be at work in the directory")
    workspace = Workspace(recipe, ranks.leads)
    with reporter.stage("prepare"):
        tokenizer = load_tokenizer(recipe.model)
        corpus, device = load_corpus(recipe, tokenizer), device_of(recipe)
        check(recipe, corpus)
        identity = workspace.claim(recipe, corpus, fingerprint(recipe.model, recipe.meta.adapter), overwrite)
        reporter.log_to(workspace.path / ranks.named("run.log"))
    run = Run(recipe, workspace, reporter, device, corpus, tokenizer.pad_token_id, identity, ranks)
    if corpus.unassigned:
        run.warn(f"{corpus.unassigned:,} rows name no source in data.sources.by and are left out")
    return run


def meta(run: Run) -> None:
    """Train once on all sources and the target's own rows: the meta-initialisation θ*."""
    if run.ranks.shard and run.workspace.done("meta") is None:
        raise GradexError("--shard: there is no meta-model yet; run `gradex-fast meta` on the recipe first")
    note = meta_train(run)
    if "looks" in note:
        run.warn(
            f"meta-training stopped at the best of {note['looks']} looks at the validation rows: θ* has seen the rows "
            "on which the estimates are made"
        )
    labels, loss = run.recipe.model.labels, note["validation_loss"]
    if labels and run.recipe.meta.training == "all" and loss >= log(labels):
        run.warn(
            f"θ* has learned nothing of the target: its validation loss is {loss:.3f}, that of a guess among {labels} "
            f"classes {log(labels):.3f}; estimates there say little. Raise train.learning_rate or train.epochs; where "
            "sources contradict one another, look at the final figures before you believe the choice"
        )


def sketch(run: Run, folder: str = "sketches") -> None:
    """Project the gradient of every training and validation sample at θ*; the sketches are kept in `folder`.

    With ``--shard`` this process makes its own shards and leaves it at that.
    """
    sketching = Sketching(run, folder)
    sketching.fill()
    if run.ranks.shard:
        left = len(sketching.missing())
        return run.reporter.say(f"sketch: this share is done, {left} shards of others are not there yet")
    if folder == "sketches":
        run.costs["sketch"] = sketching.account.cost()
        if isfinite(run.costs["sketch"].seconds):
            run.reporter.seconds["sketch"] = run.costs["sketch"].seconds
    run.train, run.validation = sketching.read()
    if folder == "sketches" and run.ranks.leads:
        write_nonfinite(run)


def cluster(run: Run) -> None:
    """Where the recipe says so: cut raw rows into clusters by their sketches; from here on these are the sources."""
    if run.recipe.clusters:
        cut_into_clusters(run)


def estimate(run: Run) -> None:
    """Make the estimator of f(S), calibrated by anchors where the recipe asks for them."""
    recipe, n = run.recipe.estimate, len(run.corpus.sources)
    groups = np.repeat(np.arange(n + 1), [len(s.examples) for s in (*run.corpus.sources, run.corpus.train)])
    rows, judged = _finite(run, "training", run.train), _finite(run, "validation", run.validation)
    always = [n] if run.corpus.train.examples else []
    run.estimator = SubsetEstimator(
        run.train[rows],
        groups[rows],
        run.validation[judged],
        ridge=10.0 if recipe.ridge == "auto" else recipe.ridge,
        always=always,
        count=n + len(always),
        divisor=recipe.divisor,
        evaluate=_lifted_losses(run, judged) if recipe.mode == "lift" else None,
        bootstrap=recipe.bootstrap,
        seed=run.recipe.seed,
    )
    if recipe.anchors:
        run.truths = random_subsets(run.estimator, recipe.anchors, recipe.anchor_fraction, run.recipe.seed + 1)
        run.truth = np.array([true_loss(run, subset, i) for i, subset in enumerate(run.truths)])
        if recipe.anchors >= 3:
            ridges = RIDGES if recipe.ridge == "auto" else None
            run.estimator = run.estimator.calibrated(run.truths, run.truth, ridges)
            if run.estimator.calibration.contradicted:
                run.warn("the anchors contradict the estimate: f̂ does not rise with f over the fine-tuned subsets")


def select(run: Run) -> None:
    """Choose the sources; say so if the ranking hangs on the ridge."""
    recipe = run.recipe.select
    with run.reporter.stage("select") as stage:
        start = time.monotonic()
        run.selection = _searched(run, recipe.method, stage)
        seconds = time.monotonic() - start
        run.others = {method: _searched(run, method, stage) for method in recipe.also if method != recipe.method}
        if run.ranks.leads:
            write_selection(run, seconds)
    decided = recipe.keep is not None or recipe.ratios or recipe.threshold != "break"
    if recipe.method == "ensemble" and not decided and len(run.selection.chosen) == len(run.corpus.sources) > 1:
        run.warn(
            "all sources are kept: no split of them lowers the estimated loss by more than its standard error; more "
            "validation rows, a smaller estimate.ridge or select.keep would split them"
        )
    run.stability = rank_stability(run)
    run.costs["select"] = searched(run).taking(run.reporter.seconds["select"])
    for name, correlation in run.stability.items():
        if correlation < STABLE:
            run.warn(f"the ranking is not stable: Spearman {correlation:.2f} between the estimates and those at {name}")


def finetune(run: Run, compare: Mapping[str, Sequence[int]]) -> None:
    """Train the final model on the chosen sources and the target's own rows, from the pretrained model."""
    trained: dict[tuple[int, ...], str] = {}
    for name, chosen in {"selected": run.selection.chosen, **compare}.items():
        if (same := trained.setdefault(tuple(sorted(chosen)), name)) != name:
            run.final[name] = run.final[same]
            continue
        examples = run.examples(chosen)
        if not examples:
            raise GradexError("no source was chosen and the target has no training rows: nothing to fine-tune on")
        folder = "final" if name == "selected" else f"compare/{name}"
        run.final[name] = fine_tune(run, folder, examples, run.recipe.train)
    begun = "adapter" if run.recipe.meta.adapter else "pretrained"
    run.final["all" if run.recipe.meta.training == "all" else begun] = run.workspace.done("meta")


def report(run: Run, labels: Sequence[str] | None = None) -> None:
    """The final model's card, metrics.json, scores.csv, report.md and report.html."""
    run.summary = summarise(run, labels)
    if run.ranks.leads:
        write_card(run.path / "final", run.recipe, run.summary)
        scores_csv(run.path, run.summary)
        write_report(run.path, run.summary)


def _searched(run: Run, method: str, stage: Stage) -> Selection:
    before = stage.done

    def progress(done: int) -> None:
        stage.advance(before + done - stage.done, f"{method}: {done} {'subsets' if method == 'ensemble' else 'steps'}")

    return search(run, method, run.recipe.select.keep, progress=progress)


def _lifted_losses(run: Run, judged: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """True losses of the validation rows `judged` at θ* + P x / √d."""
    sketcher, examples = sketcher_of(run), list(np.array(run.corpus.validation.examples, object)[judged])

    def losses(x: np.ndarray) -> np.ndarray:
        options = {"pad_id": run.pad_id, "batch_tokens": run.recipe.sketch.batch_tokens}
        with sketcher.moved(x):
            return evaluate(sketcher.model, examples, **options).loss

    return losses


def _finite(run: Run, what: str, sketches: Sketches) -> np.ndarray | slice:
    """The rows but for those that `on_nonfinite: skip` let through."""
    broken = nonfinite_rows(sketches)
    if len(broken) == len(sketches):
        raise GradexError(f"none of the {len(broken)} {what} rows has a finite gradient: nothing to estimate from")
    if len(broken):
        run.warn(
            f"{len(broken)} {what} rows have a gradient that is not finite and are left out of the estimate; "
            "nonfinite.csv lists them"
        )
    return np.setdiff1d(np.arange(len(sketches)), broken) if len(broken) else slice(None)

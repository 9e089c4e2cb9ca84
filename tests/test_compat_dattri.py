"""dattri's random projections over our kernels: both ways of calling, every type, the real attributor."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from gradex_fast.compat import trak
from gradex_fast.compat.dattri import (
    BasicProjector,
    ChunkedCudaProjector,
    CudaProjector,
    ProjectionType,
    make_random_projector,
    random_project,
)

SIZE, DIM = 1000, 96
KEEPS_PRODUCTS = ["normal", "rademacher", "sjlt"]


def features(n: int = 5, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def by_parameter(flat: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"weight": flat[:, :600].reshape(len(flat), 20, 30), "bias": flat[:, 600:]}


def made(example: torch.Tensor | dict, proj_type: str = "normal", dim: int = DIM, seed: int = 0):
    n = len(example if isinstance(example, torch.Tensor) else next(iter(example.values())))
    return random_project(example, n, dim, 32, seed, proj_type, device="cpu")


@pytest.mark.parametrize("proj_type", KEEPS_PRODUCTS)
def test_inner_products_are_kept_over_seeds(proj_type: str) -> None:
    """A variance is at most (|a|² |b|² + ⟨a, b⟩²) / dim."""
    both, dim, seeds = features(2, 300) + 0.3 * features(1, 300, seed=1), 32, 300
    found = [made(both, proj_type, dim, seed)(both).double() for seed in range(seeds)]
    products = torch.stack([g @ g.T for g in found])
    exact = both.double() @ both.double().T
    norms = exact.diagonal()
    error = ((norms[:, None] * norms + exact.square()) / (dim * seeds)).sqrt()
    assert ((products.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("proj_type", ["normal", "rademacher"])
def test_p_is_that_of_the_trak_projector_over_root_dim(proj_type: str) -> None:
    x = features()
    unscaled = trak.BasicProjector(SIZE, DIM, 7, proj_type, "cpu").project(x, model_id=3)
    torch.testing.assert_close(made(x, proj_type, seed=7)(x, ensemble_id=3), unscaled / math.sqrt(DIM))


def test_both_ways_of_calling() -> None:
    x = features()
    params = {"proj_dim": DIM, "proj_max_batch_size": 32, "proj_seed": 2, "proj_type": "rademacher"}
    found = random_project(x, len(x), **params, device="cpu")(x)
    as_object = SimpleNamespace(**params, feature_batch_size=len(x), device=torch.device("cpu"))
    assert torch.equal(random_project(x, as_object)(x), found)
    assert torch.equal(random_project(x, proj_params=as_object)(x), found)
    assert torch.equal(BasicProjector(SIZE, DIM, 2, "rademacher", torch.device("cpu")).project(x, 0), found)
    assert torch.equal(make_random_projector([600, 400], 5, DIM, 8, "cpu", 2, "rademacher").project(x, 0), found)


@pytest.mark.parametrize("proj_type", list(ProjectionType))
def test_by_parameter_is_the_flat_feature(proj_type: ProjectionType) -> None:
    x = features()
    projected = made(by_parameter(x), proj_type)(by_parameter(x), ensemble_id=1)
    torch.testing.assert_close(projected, made(x, proj_type)(x, ensemble_id=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("proj_type", [each for each in ProjectionType if each != ProjectionType.identity])
def test_seed_and_ensemble_choose_p_and_nothing_else_does(proj_type: ProjectionType) -> None:
    x = features()
    project = made(x, proj_type)
    first, other = project(x), project(x, ensemble_id=1)
    assert first.shape == (5, DIM)
    assert torch.equal(project(x), first)
    assert torch.equal(made(x, proj_type)(x), first)
    assert torch.equal(project(x[2:3]), first[2:3])
    assert not torch.isclose(other, first).all(1).any()
    assert not torch.isclose(made(x, proj_type, seed=1)(x), first).all(1).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("proj_type", list(ProjectionType))
def test_the_result_has_the_features_dtype(proj_type: ProjectionType, dtype: torch.dtype) -> None:
    x = features().to(dtype)
    found = made(x, proj_type)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, made(x.float(), proj_type)(x.float()).to(dtype), rtol=1e-3, atol=1e-3)


def test_sjlt_has_one_sign_a_feature() -> None:
    p = made(features(), "sjlt")(torch.eye(SIZE))
    assert torch.equal(p.abs().sum(1), torch.ones(SIZE))
    assert torch.equal(p.count_nonzero(1), torch.ones(SIZE, dtype=torch.int64))
    assert p.count_nonzero(0).max() < 40  # 1,000 / 96 = 10.4 on average


def test_a_mask_reads_features_as_they_are_and_grass_sketches_them() -> None:
    p = made(features(), "random_mask")(torch.eye(SIZE))
    assert torch.equal(p.T @ p, torch.eye(DIM))
    assert (p.argmax(0).diff() > 0).all()
    for proj_type, read in (("grass", 4 * DIM), ("grass_2", 2 * DIM), ("grass_50", SIZE)):
        p = made(features(), proj_type)(torch.eye(SIZE))
        assert p.count_nonzero() == read
        assert (p.count_nonzero(1) <= 1).all()


def test_a_mask_is_kept_until_memory_is_freed() -> None:
    projector, x = BasicProjector(SIZE, DIM, 0, "random_mask", "cpu"), features()
    first = projector.project(x, 0)
    projector.free_memory()
    assert torch.equal(projector.project(x, 0), first)


def test_chunks_are_added_up() -> None:
    x = features()
    parts = [CudaProjector(size, DIM, seed, "rademacher", "cpu") for seed, size in enumerate((600, 400))]
    chunked = ChunkedCudaProjector(parts, 600, [600, 400], 8, "cpu", torch.float32)
    expected = parts[0].project(x[:, :600], 1) + parts[1].project(x[:, 600:], 1)
    assert torch.equal(chunked.project(x, ensemble_id=1), expected)
    assert torch.equal(chunked.dict_project(by_parameter(x), ensemble_id=1), expected)
    with pytest.raises(TypeError, match="only accepts Tensor inputs"):
        chunked.project(by_parameter(x), ensemble_id=1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: made(features(), "gaussian"), "proj_type must be one of .*'sjlt'.*, got 'gaussian'"),
        (lambda: made(features(), "grass_x"), "got 'grass_x'"),
        (lambda: made(features(), dim=0), "proj_dim must be 1 or more, got 0"),
        (lambda: random_project(features()), "needs feature_batch_size and proj_dim"),
        (lambda: made(features())(features(2, 999)), "999 numbers a sample, the projector was made for 1,000"),
        (lambda: made(features(), "sjlt")(features(2, 999)), "999 numbers a sample"),
        (lambda: made(features(), "grass_0"), "grass_multiplier must be 1 or more, got 0"),
    ],
)
def test_what_does_not_fit_is_named(wrong, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()


def test_the_real_package_takes_ours_for_its_own_at_its_scale() -> None:
    theirs = pytest.importorskip("dattri.func.projection", reason="of the extra `test`, dattri is not installed")
    assert isinstance(BasicProjector(4, 2, 0, "normal", "cpu"), theirs.AbstractProjector)
    x = features(50)
    for proj_type in ("normal", "rademacher", "random_mask", "identity"):
        plan = (len(x), 512, 32, 0, proj_type)
        found = theirs.random_project(x, *plan, device="cpu")(x), random_project(x, *plan, device="cpu")(x)
        assert found[0].shape == found[1].shape
        ratio = found[1].square().mean() / found[0].square().mean()
        assert abs(ratio - 1) < 4 * math.sqrt(2 * 2 / found[0].numel())


def test_the_real_attributor_runs_on_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """TracIn's scores are inner products of projected gradients: ours agree with the exact ones as theirs do."""
    pytest.importorskip("dattri.algorithm.tracin", reason="of the extra `test`, dattri is not installed")
    import dattri.algorithm.tracin as tracin
    from dattri.task import AttributionTask

    monkeypatch.setattr(tracin, "random_project", random_project)
    torch.manual_seed(0)
    model, n = torch.nn.Linear(40, 5), 20
    data = torch.utils.data.TensorDataset(torch.randn(n, 40), torch.randint(5, (n,)))

    def loss(parameters, row):
        logits = torch.func.functional_call(model, parameters, row[0].unsqueeze(0))
        return torch.nn.functional.cross_entropy(logits, row[1].unsqueeze(0))

    def scores(projector_kwargs: dict | None) -> torch.Tensor:
        task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
        attributor = tracin.TracInAttributor(
            task=task, weight_list=torch.ones(1), normalized_grad=False, projector_kwargs=projector_kwargs
        )
        loaders = (torch.utils.data.DataLoader(data, batch_size=8) for _ in range(2))
        with torch.no_grad():
            return attributor.attribute(*loaders)

    exact, dim = scores(None), 1024
    found = scores({"proj_dim": dim, "proj_max_batch_size": 32, "proj_seed": 0, "proj_type": "normal"})
    norms = exact.diagonal()
    error = ((norms[:, None] * norms + exact.square()) / dim).sqrt()
    assert ((found - exact).abs() < 5 * error).all()
    assert not torch.allclose(found, exact, rtol=1e-3)

"""TRAK's projector interface over our kernels: scale, seeds, equality to the bit, what is refused, the real TRAKer."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CUDA

from gradex_fast.compat.projection import ROWS
from gradex_fast.compat.trak import BasicProjector, ChunkedCudaProjector, CudaProjector, ProjectionType

TYPES = list(ProjectionType)
SIZE, DIM = 1000, 96


def basic(size: int = SIZE, dim: int = DIM, seed: int = 0, kind: str = "normal", **more) -> BasicProjector:
    return BasicProjector(size, dim, seed, kind, "cpu", **more)


def gradients(n: int = 5, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def by_parameter(flat: torch.Tensor) -> dict[str, torch.Tensor]:
    n = len(flat)
    return {
        "weight": flat[:, :600].reshape(n, 20, 30),
        "scale": flat[:, 600],  # one number a sample
        "bias": flat[:, 601:],
    }


@pytest.mark.parametrize("kind", TYPES)
def test_entries_of_p_have_variance_one_as_in_trak(kind: ProjectionType) -> None:
    p = basic(kind=kind).project(torch.eye(SIZE), model_id=0)
    entries = p.numel()
    assert p.mean().abs() < 4 / math.sqrt(entries)
    if kind == ProjectionType.rademacher:
        torch.testing.assert_close(p.abs(), torch.ones_like(p))
    else:
        assert abs(p.square().mean() - 1) < 4 * math.sqrt(2 / entries)
        assert abs((p.abs() < 1).float().mean() - 0.6827) < 4 * math.sqrt(0.25 / entries)


@pytest.mark.parametrize("kind", TYPES)
def test_inner_products_are_kept_over_seeds(kind: ProjectionType) -> None:
    """Mean of ⟨project a, project b⟩ is dim · ⟨a, b⟩; a variance is at most dim · (|a|² |b|² + ⟨a, b⟩²)."""
    a, b = gradients(1, 300), gradients(1, 300) + 0.3 * gradients(1, 300, seed=1)
    both, dim, seeds = torch.cat([a, b]), 32, 300
    found = [basic(300, dim, seed, kind).project(both, model_id=0).double() for seed in range(seeds)]
    products = torch.stack([g @ g.T for g in found]) / dim
    exact = both.double() @ both.double().T
    norms = exact.diagonal()
    error = ((norms[:, None] * norms + exact.square()) / (dim * seeds)).sqrt()
    assert ((products.mean(0) - exact).abs() < 4 * error).all()


def test_project_is_linear_in_the_same_p() -> None:
    projector, x = basic(), gradients()
    p = projector.project(torch.eye(SIZE), model_id=3)
    torch.testing.assert_close(projector.project(x, model_id=3), x @ p, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", TYPES)
def test_p_follows_seed_and_model_id_alone(kind: ProjectionType) -> None:
    x = gradients(40)
    found = basic(kind=kind).project(x, model_id=0)
    assert torch.equal(basic(kind=kind, block_size=7, model_id=5).project(x, model_id=0), found)
    for other in (
        basic(seed=1, kind=kind).project(x, model_id=0),
        basic(kind=kind).project(x, model_id=1),
        basic(kind=TYPES[1 - TYPES.index(kind)]).project(x, model_id=0),
    ):
        cosine = torch.nn.functional.cosine_similarity(other.flatten(), found.flatten(), dim=0)
        assert cosine.abs() < 4 / math.sqrt(found.numel())


def test_one_projector_serves_many_models_in_any_order() -> None:
    projector, x = basic(), gradients()
    first, second = projector.project(x, model_id=0), projector.project(x, model_id=1)
    projector.free_memory()
    assert torch.equal(projector.project(x, model_id=0), first)
    assert torch.equal(projector.project(x, model_id=1), second)


def test_a_row_does_not_depend_on_its_batch() -> None:
    x = gradients(ROWS + 3)
    whole = basic().project(x, model_id=0)
    for row in (0, ROWS - 1, ROWS, ROWS + 2):
        assert torch.equal(basic().project(x[row : row + 1], model_id=0)[0], whole[row])
    assert basic().project(x[:0], model_id=0).shape == (0, DIM)


@pytest.mark.parametrize("kind", TYPES)
def test_by_parameter_is_the_flat_gradient(kind: ProjectionType) -> None:
    x = gradients(7)
    found = basic(kind=kind).project(by_parameter(x), model_id=2)
    torch.testing.assert_close(found, basic(kind=kind).project(x, model_id=2), rtol=1e-4, atol=1e-4)


def test_both_projectors_have_the_same_p_and_take_what_less_and_dataflex_give() -> None:
    """Their calls word by word: both classes get the arguments of both."""
    shared = {"grad_dim": SIZE, "seed": 0, "proj_type": ProjectionType.rademacher, "device": torch.device("cpu")}
    x = gradients(16).to(torch.float16)
    for more in (
        {"proj_dim": 64, "dtype": torch.bfloat16, "block_size": 128, "max_batch_size": 16},  # LESS
        {"proj_dim": 640, "dtype": torch.float16, "block_size": 128, "max_batch_size": 8},  # DataFlex
    ):
        one, other = (projector(**shared, **more) for projector in (BasicProjector, CudaProjector))
        exact = other.project(x, model_id=0)
        assert exact.dtype == torch.float32
        assert torch.equal(one.project(x, model_id=0), exact.to(more["dtype"]))
        assert one.proj_dim == more["proj_dim"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_and_float32_sums(dtype: torch.dtype) -> None:
    x = gradients().to(dtype)
    found = basic(dtype=dtype).project(x, model_id=0)
    assert found.dtype == dtype
    exact = basic().project(x.float(), model_id=0)
    torch.testing.assert_close(found, exact.to(dtype), rtol=0, atol=0)


def test_gradients_are_left_alone_and_carry_no_graph() -> None:
    x = gradients().requires_grad_()
    before = x.detach().clone()
    found = basic().project(x, model_id=0)
    assert not found.requires_grad
    found /= 3  # as TRAKer does
    assert torch.equal(x, before)


def test_gradients_need_not_be_contiguous() -> None:
    wide = gradients(5, 2 * SIZE)
    assert torch.equal(
        basic().project(wide[:, ::2], model_id=0), basic().project(wide[:, ::2].contiguous(), model_id=0)
    )


def test_chunks_are_added_up() -> None:
    x, sizes = by_parameter(gradients(6)), [600, 0, 400]
    projectors = [basic(max(size, 1), seed=seed) for seed, size in enumerate(sizes)]
    chunked = ChunkedCudaProjector(projectors, 600, sizes, 8, "cpu", torch.float32)
    flat = gradients(6)
    expected = projectors[0].project(flat[:, :600], 1) + projectors[2].project(flat[:, 600:], 1)
    torch.testing.assert_close(chunked.project(x, model_id=1), expected, rtol=1e-4, atol=1e-4)
    astride = ChunkedCudaProjector([basic(500), basic(500)], 600, [500, 500], 8, "cpu", torch.float32)
    with pytest.raises(ValueError, match="made for 500"):
        astride.project(x, model_id=1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: basic(kind="gaussian"), r"proj_type must be one of \['normal', 'rademacher'\], got 'gaussian'"),
        (lambda: basic(dim=0), "proj_dim must be 1 or more, got 0"),
        (lambda: basic(size=0), "grad_dim must be 1 or more, got 0"),
        (lambda: basic().project(gradients(2, 999), 0), "999 numbers a sample, the projector was made for 1,000"),
        (lambda: basic().project(gradients()[0], 0), r"must be \[n, p\] or a dict by parameter, got a tensor \[1000\]"),
        (lambda: basic().project({}, 0), "of the same n samples, got n = {}"),
        (
            lambda: basic().project({"a": gradients(2, 500), "b": gradients(3, 500)}, 0),
            "same n samples, got n = {'a': 2, 'b': 3}",
        ),
    ],
)
def test_what_does_not_fit_is_named(wrong, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()


@pytest.mark.parametrize("device", [CUDA])
def test_the_same_p_on_cuda(device: str) -> None:
    x = by_parameter(gradients(40))
    found = CudaProjector(SIZE, DIM, 0, "normal", device, 32).project(x, model_id=1)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), basic().project(x, model_id=1), rtol=1e-4, atol=1e-3)


def test_needs_neither_trak_nor_transformers() -> None:
    script = (
        "import sys; sys.modules['trak'] = sys.modules['dattri'] = None\n"
        "import torch, gradex_fast.compat.trak as t, gradex_fast.compat.dattri\n"
        "assert t.BasicProjector(4, 2, 0, 'normal', 'cpu').project(torch.ones(3, 4), 0).shape == (3, 2)\n"
        "assert 'transformers' not in sys.modules and 'datasets' not in sys.modules"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_the_real_package_takes_ours_for_its_own_at_its_scale() -> None:
    trak = pytest.importorskip("trak.projectors", reason="of the extra `test`, traker is not installed")
    assert isinstance(basic(), trak.AbstractProjector)
    assert isinstance(CudaProjector(4, 2, 0, trak.ProjectionType.normal, "cpu", 8), trak.AbstractProjector)
    x = gradients(50)
    for kind in trak.ProjectionType:
        theirs = trak.BasicProjector(SIZE, 512, 0, kind, torch.device("cpu"), block_size=512).project(x, model_id=0)
        ours = basic(dim=512, kind=kind).project(x, model_id=0)
        ratio = ours.square().mean() / theirs.square().mean()
        assert abs(ratio - 1) < 4 * math.sqrt(2 * 2 / ours.numel())


def test_the_real_traker_runs_on_ours(tmp_path: Path) -> None:
    """Features are the projected gradients of its own gradient computer; a sample's best explanation is itself."""
    trak = pytest.importorskip("trak", reason="of the extra `test`, traker is not installed")
    torch.manual_seed(0)
    model, n, dim = torch.nn.Linear(20, 3).eval(), 30, 16
    size = sum(parameter.numel() for parameter in model.parameters())
    batch = [torch.randn(n, 20), torch.randint(3, (n,))]
    traker = trak.TRAKer(
        model=model,
        task="image_classification",
        train_set_size=n,
        save_dir=tmp_path,
        device="cpu",
        projector=basic(size, dim, kind=ProjectionType.rademacher),
        use_half_precision=False,
        logging_level=50,
    )
    traker.load_checkpoint(model.state_dict(), model_id=4)
    traker.featurize(batch, num_samples=n)
    computed = traker.gradient_computer.compute_per_sample_grad(batch)
    expected = basic(size, dim, kind="rademacher").project(computed, model_id=4) / math.sqrt(size)
    torch.testing.assert_close(torch.as_tensor(traker.saver.current_store["grads"][:]), expected)
    traker.finalize_features()
    traker.start_scoring_checkpoint("itself", model.state_dict(), model_id=4, num_targets=n)
    traker.score(batch, num_samples=n)
    scores = torch.as_tensor(traker.finalize_scores("itself"))
    assert scores.shape == (n, n) and scores.isfinite().all()
    assert (scores.abs().argmax(0) == torch.arange(n)).float().mean() > 0.5

# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""In pieces, ahead of time and in half precision the results are the same."""

import gc
import itertools
import threading

import numpy as np
import pytest
import torch

from astro_disentangle import Cutouts, Disentangler, serving, simulate_pairs
from astro_disentangle.model.stretch import arcsinh
from astro_disentangle.serving import ahead, latents, pieces


@pytest.fixture(scope="module")
def cutouts():
    """40 galaxies of HSC."""
    batch = simulate_pairs(40, random_state=5).batch("hsc")
    return Cutouts(batch, [str(row) for row in range(40)], np.full((40, 2), np.nan))


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.setattr(serving, "_processors", lambda: 2)


def test_arcsinh():
    x = torch.cat([torch.logspace(-30, 17, 4000), torch.zeros(1)])
    x = torch.cat([x, -x]).requires_grad_()
    exact = torch.asinh(x.double()).float()
    torch.testing.assert_close(arcsinh(x), exact, rtol=3e-7, atol=0)
    assert arcsinh(torch.tensor(-0.0)).signbit()
    (slope,) = torch.autograd.grad(arcsinh(x[2000:4000]).sum(), x)
    wanted = 1 / (1 + x[2000:4000].double() ** 2).sqrt()
    torch.testing.assert_close(slope[2000:4000], wanted.float(), rtol=1e-5, atol=0)
    assert arcsinh(torch.tensor([1e30, torch.nan])).isnan().tolist() == [False, True]


def test_pieces_cover_the_batch():
    cpu = torch.device("cpu")
    for size, rows in ((1, 1), (32, 1), (100, 1), (100, 5), (7, 64)):
        covered = [range(size)[part] for part in pieces(size, cpu, rows=rows)]
        assert list(itertools.chain(*covered)) == list(range(size))
        assert max(len(part) for part in covered) * rows <= max(32, rows)
    assert pieces(100, torch.device("cuda")) == [slice(0, 100)]


def test_pieces_do_not_matter(cutouts):
    network = Disentangler.load().network_
    whole = latents(network, cutouts.batch)
    rows = [latents(network, cutouts.batch[row : row + 1]) for row in range(0, 40, 9)]
    for name in (0, 1):
        alone = torch.cat([row[name] for row in rows])
        torch.testing.assert_close(alone, whole[name][::9], rtol=0, atol=1e-5)


def test_samples_do_not_depend_on_their_number(cutouts):
    model = Disentangler.load()
    options = {"survey": "legacy", "return_samples": True, "bands": ["r"]}
    many = model.translate(cutouts[:2], n_samples=40, **options)
    few = model.translate(cutouts[1:2], n_samples=3, **options)
    np.testing.assert_allclose(
        few[0].value, many[1].value[:3], atol=1e-3 * np.std(few[0].value)
    )
    assert len(np.unique(many[0].value[:, 0, 3, 3])) == 40


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_ahead_keeps_the_order(count, two_processors):
    assert list(ahead(lambda n: n * n, range(count))) == [n * n for n in range(count)]


def test_ahead_reads_while_others_work(two_processors):
    """The second result is made before the first one has been used."""
    made = threading.Event()

    def make(item):
        if item == 1:
            made.set()
        return item, threading.current_thread()

    seen = []

    def items():
        for item in range(4):
            seen.append(threading.current_thread())
            yield item

    results = ahead(make, items())
    assert next(results)[0] == 0
    assert made.wait(10)
    assert [item for item, _ in results] == [1, 2, 3]
    # Other people's iterators stay in the thread that they know.
    assert set(seen) == {threading.current_thread()}


def test_ahead_starts_no_thread_without_need(monkeypatch, two_processors):
    here = threading.current_thread()
    own = list(ahead(lambda _: threading.current_thread(), [1]))
    assert own == [here]
    monkeypatch.setattr(serving, "_processors", lambda: 1)
    assert set(ahead(lambda _: threading.current_thread(), [1, 2, 3])) == {here}


def test_ahead_raises_in_place(two_processors):
    results = ahead(lambda n: 1 // n, [1, 2, 0, 3])
    assert [next(results), next(results)] == [1, 0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_ahead_leaves_no_thread(two_processors):
    before = threading.active_count()
    results = ahead(str, range(10))
    next(results)
    assert threading.active_count() == before + 1
    results.close()
    gc.collect()
    assert threading.active_count() == before


def test_bfloat16_is_near_float32(cutouts):
    exact, half = Disentangler.load(), Disentangler.load(dtype="bfloat16")
    one, other = exact.transform(cutouts), half.transform(cutouts)
    for name in ("physics", "instrument"):
        spread = one[name].std(0).mean()
        error = np.sqrt(np.mean((one[name] - other[name]) ** 2))
        assert 0 < error < 1e-2 * spread
    assert one.meta["DTYPE"] == "float32" and other.meta["DTYPE"] == "bfloat16"
    views = [
        model.translate(cutouts[:8], survey="legacy", random_state=1)
        for model in (exact, half)
    ]
    for a, b in zip(*views, strict=True):
        for band in a:
            noise = a[band].uncertainty.array
            error = np.sqrt(np.mean(((a[band].data - b[band].data) / noise) ** 2))
            assert 0 < error < 0.1
    assert not torch.is_autocast_enabled("cpu")


def test_float32_is_exact(cutouts):
    """The default has nothing to do with half precision."""
    model = Disentangler.load()
    network = model.network_
    with torch.no_grad():
        view = network.view(cutouts.batch[:32])
        members = network.instrument.members(view)
        z_instrument = network.instrument.pool(members, torch.eye(32, dtype=bool))
        z_physics = network.physics(view)
    got = model.transform(cutouts[:32])
    assert (got["physics"] == z_physics.numpy()).all()
    assert (got["instrument"] == z_instrument.numpy()).all()


def test_other_dtypes_are_refused(cutouts):
    with pytest.raises(ValueError, match="'dtype' must be one of.*float16"):
        Disentangler.load(dtype="float16")
    model = Disentangler.load().set_params(dtype="half")
    with pytest.raises(ValueError, match="'dtype'.*'half'"):
        model.transform(cutouts)
    with pytest.raises(ValueError, match="'dtype'.*'half'"):
        model.translate(cutouts, survey="legacy")

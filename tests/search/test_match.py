# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Similarity search: exact, across surveys, blind to what cannot be used."""

import copy

import numpy as np
import pytest
from astropy.table import QTable

from astro_disentangle import CutoutError, simulate_pairs
from astro_disentangle.search import exact
from astro_disentangle.search.exact import nearest


@pytest.fixture(scope="module")
def latents(model):
    pairs = simulate_pairs(64, random_state=8)
    return {survey: model.transform(pairs.cutouts(survey)) for survey in pairs.surveys}


def test_nearest_is_exact(monkeypatch):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(9, 12)), rng.normal(size=(501, 12))
    monkeypatch.setattr(exact, "_CHUNK", 64)
    rows, distances = nearest(queries, gallery, 7)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, gallery)]
    expected = 1 - unit[0] @ unit[1].T
    order = expected.argsort(1)[:, :7]
    assert np.array_equal(rows, order)
    assert np.allclose(distances, np.take_along_axis(expected, order, 1), atol=1e-6)


def test_nan_finds_nothing_and_is_never_found():
    gallery = np.eye(4)
    gallery[1] = np.nan
    rows, distances = nearest([[1, 1, 0, 0], [np.nan] * 4], gallery, 4)
    assert rows[0, 0] == 0 and 1 not in rows[0] and rows[0, 3] == -1
    assert (rows[1] == -1).all() and np.isnan(distances[1]).all()
    assert np.isnan(distances[0, 3]) and np.isfinite(distances[0, :3]).all()


def test_ties_keep_the_order_of_the_catalogue(monkeypatch):
    gallery = np.ones((10, 3))
    for chunk in (3, 100):
        monkeypatch.setattr(exact, "_CHUNK", chunk)
        rows, _ = nearest(gallery[:1], gallery, 4)
        assert rows.tolist() == [[0, 1, 2, 3]]


def test_the_same_galaxy_is_among_the_first(model, latents):
    """One survey looks in the other; a shuffled catalogue must find nothing."""
    matches = model.similar(latents["hsc"], latents["legacy"], k=5)
    assert isinstance(matches, QTable) and len(matches) == 64 * 5
    own = matches["row"].reshape(64, 5) == np.arange(64)[:, None]
    assert own.any(1).mean() > 0.8
    shuffled = latents["legacy"][np.random.default_rng(0).permutation(64)]
    wrong = model.similar(latents["hsc"], shuffled, k=5)
    assert (wrong["row"].reshape(64, 5) == np.arange(64)[:, None]).any(1).mean() < 0.3
    assert (matches["survey"] == "legacy").all()
    assert (np.diff(matches["distance"].reshape(64, 5), axis=1) >= 0).all()
    assert matches["query"][5] == latents["hsc"]["object_id"][1]


def test_cutouts_may_be_asked_for(model, latents):
    pairs = simulate_pairs(64, random_state=8)
    some = model.similar(pairs.cutouts("hsc")[3:5], latents["legacy"], k=2)
    table = model.similar(latents["hsc"][3:5], latents["legacy"], k=2)
    assert np.array_equal(some["row"], table["row"])
    one = model.similar(pairs.cutouts("hsc")[3], pairs.cutouts("legacy"), k=100)
    assert len(one) == 64 and one["row"][:2].tolist() == some["row"][:2].tolist()


def test_latents_outlive_a_save(model, latents, tmp_path):
    """Heads and files may change: latents belong to the network."""
    own = copy.copy(model)
    own.save(tmp_path / "own.safetensors")
    assert own.sha256_ != model.sha256_
    assert len(own.similar(latents["hsc"][:1], latents["legacy"], k=2)) == 2


def test_refusals(model, latents):
    other = latents["hsc"].copy()
    other.meta["NETWORK"] = "0" * 64
    with pytest.raises(CutoutError, match="of this model"):
        model.similar(other, latents["legacy"])
    with pytest.raises(CutoutError, match="physics"):
        model.similar(latents["hsc"]["object_id", "flags"], latents["legacy"])
    with pytest.raises(ValueError, match="'k'"):
        model.similar(latents["hsc"], latents["legacy"], k=0)

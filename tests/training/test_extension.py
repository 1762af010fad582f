# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""A further survey: what was known stays to the bit, what is new is learned."""

import dataclasses

import astropy.units as u
import numpy as np
import pytest
import torch
from torch.nn import functional

from astro_disentangle import (
    Disentangler,
    NotFittedError,
    SurveyMismatchError,
    WeightsError,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.model.encoder import View
from astro_disentangle.training.extension import (
    _of_images,
    band_mixing,
    extended,
    nearest_survey,
)


def _translated(network, batch, target, seed=0):
    """Latents of a batch, and views of it in a survey under its own conditions."""
    view = network.view(batch)
    z_physics = network.physics(view)
    own = torch.eye(len(batch), dtype=torch.bool)
    z_instrument = network.instrument.pool(network.instrument.members(view), own)
    survey = network.surveys[target]
    x_0 = torch.randn(
        len(batch),
        1,
        len(survey.bands),
        survey.stamp_size,
        survey.stamp_size,
        generator=torch.Generator().manual_seed(seed),
    )
    known = {
        "source": batch.survey.name,
        "observation": view.observation,
        "target": target,
        "offset": torch.zeros(len(batch), 2),
    }
    pixels = network.translate(z_physics, z_instrument, x_0, prepare=known, n_steps=2)
    return z_physics, z_instrument, pixels


@pytest.mark.parametrize("like", ["hsc", "legacy"])
@torch.inference_mode()
def test_a_twin_is_seen_and_painted_as_its_model(model, like):
    network = model.network_
    twin = dataclasses.replace(network.surveys[like], name="twin")
    more = extended(network, twin)
    batch = simulate_pairs(6, random_state=4).batch(like)
    old = _translated(more, batch, like)
    new = _translated(more, dataclasses.replace(batch, survey=twin), "twin")
    for one, other in zip(old, new, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * one.std().item())
    measured = (
        layers[name].surprise(*old[:2], torch.ones(6, 4 * n), torch.ones(6, 4 * n))
        for layers, n in [(more.photometry, len(twin.bands))]
        for name in (like, "twin")
    )
    torch.testing.assert_close(*measured)


@torch.inference_mode()
def test_finer_pixels_begin_as_the_same_galaxy(model):
    # Patches have another size too.
    legacy = model.network_.surveys["legacy"]
    finer = dataclasses.replace(
        legacy, name="finer", pixel_scale=0.2, stamp_size=42, patch_size=3
    )
    pairs = simulate_pairs(48, surveys=("legacy", finer), random_state=5)
    more = extended(model.network_, finer)
    z = [more.physics(more.view(pairs.batch(name))) for name in pairs.surveys]
    z = [functional.normalize(part - part.mean(0)) for part in z]
    found = (z[1] @ z[0].T).argmax(1) == torch.arange(48)
    assert found.float().mean() > 0.7
    painted = _translated(more, pairs.batch("legacy"), "finer")[2][:, 0]
    truth = pairs.batch("finer").pixels
    # Where a galaxy has light, the painted one has it too.
    level = [functional.avg_pool2d(x, 7).flatten() for x in (painted, truth)]
    level = [torch.asinh(x / truth.std() * 30) for x in level]
    other = level[1].roll(len(level[1]) // 2)
    same, another = (
        torch.corrcoef(torch.stack([level[0], x]))[0, 1] for x in (level[1], other)
    )
    assert same > 0.5
    assert same > another + 0.15


def test_what_was_known_asks_for_no_gradient(tiny_network):
    more = extended(tiny_network, get_survey("des"))
    known = dict(tiny_network.named_parameters())
    for name, parameter in more.named_parameters():
        assert parameter.requires_grad == (name not in known)
        if name in known:
            assert torch.equal(parameter, known[name])
            assert known[name].requires_grad
    state = torch.get_rng_state()
    extended(tiny_network, get_survey("kids"))
    assert torch.equal(state, torch.get_rng_state())


def test_bands_are_interpolated_in_wavelength():
    des, north = get_survey("des"), get_survey("legacy-north")
    mixing = band_mixing(north, des)
    assert mixing.shape == (5, 3)
    torch.testing.assert_close(mixing.sum(1), torch.ones(5))
    # DES i is between r and z, its Y beyond z.
    assert 0.2 < mixing[2, 1] < 0.8
    assert mixing[2, 0] == 0
    assert mixing[4].tolist() == [0, 0, 1]
    strange = dataclasses.replace(north, filters=("mine-a", "mine-b", "mine-c"))
    assert band_mixing(strange, des)[2].tolist() == [0, 1, 0]


def test_what_is_seen_of_interpolated_bands():
    mixing = band_mixing(get_survey("lsst"), get_survey("hsc"))
    x = torch.randn(2, 6, 48, 48, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(2, 5, 48, 48), torch.zeros(2, 25)
    mixed = torch.einsum("dc,bcij->bdij", mixing, x)
    wanted = View("hsc", mixed, *known).images[:, :6]
    images = View("lsst", x, torch.zeros_like(x), torch.zeros(2, 30)).images
    found = torch.einsum("oi,bihw->bohw", _of_images(mixing), images)[:, :6]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_patches_of_another_size_keep_the_variance_of_noise(model):
    twin = dataclasses.replace(
        model.network_.surveys["legacy"], name="twin", stamp_size=64, patch_size=8
    )
    layers = extended(model.network_, twin).decoder.patch
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        spread = [
            layers[name](torch.randn(64, 4, n, n, generator=generator)).std()
            for name, n in (("legacy", 32), ("twin", 64))
        ]
    assert 0.6 < spread[1] / spread[0] < 1.1


def test_nearest_survey_is_the_one_as_deep(tiny_network):
    names = {"kids": "legacy", "lsst": "hsc", "des": "legacy", "sdss": "legacy"}
    for name, near in names.items():
        assert nearest_survey(tiny_network, get_survey(name)).name == near


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """The packaged model with SDSS, as it is after a few steps; and the folder."""
    folder = tmp_path_factory.mktemp("added")
    model = Disentangler.load().set_params(
        n_steps=6, batch_size=12, progress=False, random_state=3, learning_rate=2e-3
    )
    pairs = simulate_pairs(24, surveys=("sdss", "legacy"), random_state=6)
    assert model.set_params(directory=folder).add_survey("sdss", pairs) is model
    return model, pairs, folder


def test_latents_and_views_of_known_surveys_do_not_move_by_a_bit(added, model):
    extended_model = added[0]
    pairs = simulate_pairs(8, random_state=7)
    for name, other in (("hsc", "legacy"), ("legacy", "hsc")):
        before = model.transform(pairs.cutouts(name), survey=name)
        after = extended_model.transform(pairs.cutouts(name), survey=name)
        for column in ("physics", "instrument"):
            assert np.array_equal(before[column], after[column])
        views = [
            m.translate(pairs.cutouts(name)[0], survey=other, random_state=1)
            for m in (model, extended_model)
        ]
        for band in views[0]:
            assert np.array_equal(views[0][band].data, views[1][band].data)
            assert np.array_equal(
                views[0][band].uncertainty.array, views[1][band].uncertainty.array
            )


def test_the_new_survey_is_read_and_painted(added):
    model, pairs, _ = added
    assert model.surveys == ("hsc", "legacy", "sdss")
    assert model.history_["step"].tolist()[-1] == 6
    table = model.transform(pairs.cutouts("sdss"))
    assert np.isfinite(table["physics"]).all()
    for target in ("hsc", "legacy", "sdss"):
        view = model.translate(pairs.cutouts("sdss")[0], survey=target, random_state=0)
        assert view.survey.name == target
        assert all(np.isfinite(image.data).all() for image in view.values())
    view = model.translate(
        pairs.cutouts("legacy")[1], survey="sdss", psf_fwhm=1.4 * u.arcsec
    )
    assert view.survey.name == "sdss"


def test_only_what_is_new_was_trained(added, model):
    known = model.network_.state_dict()
    moved = extended(model.network_, get_survey("sdss")).state_dict()
    for name, tensor in added[0].network_.state_dict().items():
        if name in known:
            assert torch.equal(tensor, known[name]), name
    still = {
        name
        for name, tensor in added[0].network_.state_dict().items()
        if torch.equal(tensor, moved[name]) and name not in known
    }
    # What no pair of the run says anything of.
    assert not {n for n in still if "rule" not in n}
    assert all(p.requires_grad for p in added[0].network_.parameters())


@torch.inference_mode()
def test_latents_are_given_the_mean_of_the_known_survey(added):
    model, pairs, _ = added
    network = model.network_
    centre = network.physics.centre("sdss")
    view = network.view(pairs.batch("sdss"))
    known = network.physics(network.view(pairs.batch("legacy"))).mean(0)
    off, kept = [], centre.clone()
    try:
        for place in (kept, network.physics.centre("legacy")):
            centre.copy_(place)
            off.append((network.physics(view).mean(0) - known).norm())
    finally:
        centre.copy_(kept)
    assert off[0] < 0.7 * off[1]


def test_saved_and_loaded_with_all_its_surveys(added, tmp_path):
    model, pairs, _ = added
    model.save(tmp_path / "three.safetensors")
    again = Disentangler.load(tmp_path / "three.safetensors")
    assert again.surveys == ("hsc", "legacy", "sdss")
    for name in pairs.surveys:
        assert np.array_equal(
            again.transform(pairs.cutouts(name))["physics"],
            model.transform(pairs.cutouts(name))["physics"],
        )
    assert again.bank_.z_instrument["sdss"].shape[1] == 24
    before = Disentangler.load().bank_
    for name in ("hsc", "legacy"):
        assert torch.equal(again.bank_.z_instrument[name], before.z_instrument[name])
    assert set(again.heads_) == set(model.heads_) != set()


def test_a_second_one_joins_from_pairs_with_the_first(added):
    model = Disentangler.load().set_params(
        n_steps=2, batch_size=8, progress=False, random_state=3
    )
    model.add_survey("des", simulate_pairs(8, surveys=("hsc", "des"), random_state=1))
    pairs = simulate_pairs(8, surveys=("des", "kids"), random_state=2)
    model.add_survey("kids", pairs)
    assert list(model.network_.surveys) == ["hsc", "legacy", "des", "kids"]
    view = model.translate(pairs.cutouts("kids")[0], survey="legacy", random_state=0)
    assert np.isfinite(view["g"].data).all()


def test_training_is_the_same_every_time_and_resumed(added, tmp_path):
    model, pairs, folder = added

    def fresh(directory, n_steps=6):
        return Disentangler.load().set_params(
            n_steps=n_steps,
            batch_size=12,
            progress=False,
            random_state=3,
            learning_rate=2e-3,
            directory=directory,
        )

    with pytest.raises(WeightsError, match="a run in"):
        fresh(folder).add_survey("sdss", pairs)
    again = fresh(folder).add_survey("sdss", pairs, resume=True)
    for name, tensor in model.network_.state_dict().items():
        assert torch.equal(tensor, again.network_.state_dict()[name]), name
    with pytest.raises(WeightsError, match="another"):
        fresh(folder).add_survey("kids", _of("kids"), resume=True)


def _of(name, known="hsc"):
    return simulate_pairs(8, surveys=(known, name), random_state=1)


@pytest.mark.parametrize(
    ("survey", "names", "message"),
    [
        ("legacy", ("legacy",), "does not know"),
        ("kids", ("legacy",), "must be of 'kids' and one of"),
        ("kids", ("des",), "must be of 'kids' and one of"),
        ("kids", ("kids", "des"), "must be of 'kids' and one of"),
    ],
)
def test_surveys_that_do_not_fit(survey, names, message):
    model = Disentangler.load().set_params(n_steps=1, progress=False)
    with pytest.raises(SurveyMismatchError, match=message):
        model.add_survey(survey, _of(*names))
    assert model.surveys == ("hsc", "legacy")


def test_pairs_are_pairs():
    model = Disentangler.load().set_params(n_steps=1, progress=False)
    with pytest.raises(TypeError, match="'pairs' must be PairedCutouts"):
        model.add_survey("kids", [1, 2])


def test_a_model_must_be_there():
    with pytest.raises(NotFittedError, match="no weights"):
        Disentangler().add_survey("kids", _of("kids"))

# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Test pairs by GalSim: right images, seeds of their own, files that keep every bit."""

import dataclasses
import functools
import math
import sys

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

from astro_disentangle import WeightsError, get_survey
from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint
from astro_disentangle.evaluation import galsim_pairs, galsim_shapes
from astro_disentangle.evaluation.galsim_pairs import main, render_pairs
from astro_disentangle.evaluation.pair_files import load_pairs, save_pairs
from astro_disentangle.simulation import simulate, sky
from astro_disentangle.simulation.instruments import draw_conditions
from astro_disentangle.simulation.noise import photon_factor

pytest.importorskip("galsim")

NAMES = ("hsc", "legacy")
SEED, SIZE = 7, 8
FEW = {"seed": SEED, "neighbours": None}


@pytest.fixture(scope="module")
def pairs():
    return render_pairs(SIZE, NAMES, seed=SEED)


@pytest.fixture(scope="module")
def path(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.safetensors"
    save_pairs(path, pairs, seed=SEED)
    return path


def tensors(pairs):
    """Every tensor of the pairs by name."""
    out = {"group": pairs.group}
    for part in ("truth", "noiseless", "neighbours"):
        out |= {f"{part} {name}": x for name, x in getattr(pairs, part).items()}
    for name, batch in pairs.batches.items():
        for field in dataclasses.fields(batch):
            if field.name != "survey":
                out[f"{name} {field.name}"] = getattr(batch, field.name)
    return out


def same_bits(a, b):
    return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


def group_of(name, neighbours=0):
    """What the first group draws: its generator, scene, E(B-V) and conditions."""
    random = functools.partial(galsim_pairs._generator, SEED, 0)
    scene, ebv, _, _ = galsim_pairs._draw_group(random, SIZE, neighbours, None)
    conditions = draw_conditions(get_survey(name), 1, random("conditions", name))
    return random, scene, ebv, conditions


@pytest.mark.parametrize("name", NAMES)
def test_images_agree_with_the_training_renderer(name, pairs):
    random, scene, ebv, conditions = group_of(name)
    _, ours, _ = sky._expose(
        get_survey(name),
        scene,
        ebv,
        conditions,
        pairs.group,
        "cpu",
        lambda purpose: random(purpose, name),
    )
    theirs = pairs.noiseless[name]
    error = (ours - theirs).abs().amax((2, 3)) / theirs.amax((2, 3))
    print(f"{name}: median {error.median():.1e}, largest {error.max():.1e}")
    assert error.max() < 1e-3


def test_pairs_are_a_simulation_like_any_other(pairs):
    other = tensors(simulate(1, SIZE, NAMES, seed=SEED))
    mine = tensors(pairs)
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert tensor.shape == other[name].shape, name
        assert tensor.dtype == other[name].dtype, name


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_what_the_truth_says(name, pairs):
    batch, light = pairs.batches[name], pairs.noiseless[name]
    noise = pairs.truth[f"noise_{name}"][:, :, None, None]
    pull = (batch.pixels - light) / noise / photon_factor(batch.survey, light)
    spread = pull[batch.good].std().item()
    print(f"{name}: {spread:.3f}")
    assert abs(spread - 1) < 0.05
    assert torch.equal(torch.isnan(batch.noise), ~batch.present)


def test_no_seed_of_training_makes_these_scenes(pairs, monkeypatch):
    used = {"training": set(), "test": set()}
    for kind, module in (("training", sky), ("test", galsim_pairs)):

        def note(make, kind=kind):
            def noted(seed, purpose, *more, **options):
                used[kind].add(purpose)
                return make(seed, purpose, *more, **options)

            return noted

        for name in ("key", "torch_generator"):
            monkeypatch.setattr(module, name, note(getattr(module, name)))
    training = simulate(1, SIZE, NAMES, seed=SEED)
    render_pairs(1, ["legacy"], seed=SEED)
    assert used["test"] == {"galsim"}
    assert used["training"] and "galsim" not in used["training"]
    keys = [set(p.batches["hsc"].keys.tolist()) for p in (training, pairs)]
    assert not keys[0] & keys[1]
    for name in ("magnitude", "ebv", "depth_hsc", "psf_fwhm_legacy"):
        assert not torch.equal(training.truth[name], pairs.truth[name]), name


def test_first_scenes_do_not_depend_on_the_number():
    long, short = (
        tensors(render_pairs(n, ["legacy"], group_size=2, **FEW)) for n in (5, 3)
    )
    for name, tensor in short.items():
        assert len(tensor) == 3
        assert same_bits(tensor, long[name][:3]), name


def test_file_keeps_every_bit(pairs, path):
    again = load_pairs(path)
    assert again.surveys == pairs.surveys
    assert list(again.batches) == list(pairs.batches)
    mine, read = tensors(pairs), tensors(again)
    assert mine.keys() == read.keys()
    assert any(torch.isnan(x).any() for x in mine.values() if x.is_floating_point())
    for name, tensor in mine.items():
        assert same_bits(tensor, read[name]), name
    config = read_checkpoint(path)[1]
    assert config["seed"] == SEED
    assert config["version"]


def test_damaged_and_foreign_files_are_refused(path, tmp_path):
    content = bytearray(path.read_bytes())
    bad = tmp_path / "bad.safetensors"
    for place in (len(content) // 2, len(content) - 1):
        hit = bytearray(content)
        hit[place] ^= 1
        bad.write_bytes(hit)
        with pytest.raises(WeightsError, match="damaged"):
            load_pairs(bad)
    bad.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        load_pairs(bad)
    write_checkpoint(bad, {"a": torch.ones(1)}, {"recipe": "default"})
    with pytest.raises(WeightsError, match="does not hold"):
        load_pairs(bad)
    bad.write_bytes(b"SIMPLE  =                    T")
    with pytest.raises(WeightsError, match="not a weights file"):
        load_pairs(bad)


def test_command_line_writes_all_or_nothing(tmp_path, monkeypatch, capsys):
    output = tmp_path / "pairs.safetensors"
    main(["--pairs", "1", "--seed", str(SEED), "--output", str(output)])
    assert len(load_pairs(output)) == 1
    before = output.read_bytes()

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(galsim_pairs, "_observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["--pairs", "1", "--output", str(output)])
    assert output.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [output.name]
    monkeypatch.undo()
    nowhere = tmp_path / "no" / "pairs.safetensors"
    with pytest.raises(SystemExit):
        main(["--pairs", "1", "--output", str(nowhere)])
    assert "no folder" in capsys.readouterr().err


def test_wrong_arguments_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'morphology' must be one of"):
        render_pairs(1, seed=0, morphology="jwst")
    with pytest.raises(ValueError, match="'stamps' must name a folder"):
        render_pairs(1, seed=0, morphology="hst")
    with pytest.raises(FileNotFoundError, match="GAL_FILENAME"):
        render_pairs(1, seed=0, morphology="hst", stamps=tmp_path)
    with pytest.raises(ValueError, match="'surveys' must have different names"):
        render_pairs(1, ["hsc", "hsc"], seed=0)
    with pytest.raises(ValueError, match="'n' must be a positive"):
        render_pairs(0, seed=0)
    monkeypatch.setitem(sys.modules, "galsim", None)
    galsim_shapes.load_galsim.cache_clear()
    with pytest.raises(ImportError, match=r"astro_disentangle\[sim\]"):
        render_pairs(1, seed=0)


def stamp_folder(folder, ratio, sigma, angle):
    """One stamp: a Gaussian ellipse (sigma in pixels) off the centre, with noise."""
    y, x = np.indices((140, 140)) - np.array([68.0, 71.0])[:, None, None]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    image = np.exp(-0.5 * (ratio * along**2 + across**2 / ratio) / sigma**2)
    image += 1e-3 * np.random.default_rng(0).normal(size=image.shape)
    fits.HDUList([fits.PrimaryHDU(image)]).writeto(folder / "images.fits")
    table = {"GAL_FILENAME": ["images.fits"], "GAL_HDU": [0]}
    table |= {"PIXEL_SCALE": [0.03], "MAG": [21.0]}
    Table(table).write(folder / "catalog.fits")
    return folder


def ellipticity_of(image):
    """Complex ellipticity of an image, from moments under a round Gaussian."""
    y, x = np.indices(image.shape) - np.array(image.shape)[:, None, None] // 2
    for _ in range(3):
        weight = image * np.exp(-0.5 * (x**2 + y**2) / 4.0**2)
        x, y = (u - (weight * u).sum() / weight.sum() for u in (x, y))
    xx, xy, yy = ((weight * m).sum() for m in (x * x, x * y, y * y))
    return complex(xx - yy, 2 * xy) / (xx + yy)


def test_truth_of_a_stamp_is_its_own(tmp_path):
    ratio, sigma = 0.5, 14.0
    folder = stamp_folder(tmp_path, ratio, sigma, 0.4)
    pairs = render_pairs(SIZE, ["hsc"], morphology="hst", stamps=folder, **FEW)
    galaxy = ~pairs.truth["is_star"]
    truth = {name: tensor[galaxy].numpy() for name, tensor in pairs.truth.items()}
    r_half = 0.03 * sigma * math.sqrt(2 * math.log(2))
    assert np.allclose(10 ** truth["log_size"], r_half, rtol=0.03)
    e = truth["e1"] + 1j * truth["e2"]
    assert np.allclose(abs(e), (1 - ratio**2) / (1 + ratio**2), atol=0.02)
    assert np.isnan(truth["bulge_fraction"]).all()
    assert np.isfinite(truth["redshift"]).all()
    # As the image is turned and mirrored, so is the truth: seen in the image.
    images = pairs.noiseless["hsc"][galaxy, 2].numpy()
    seen = np.array([ellipticity_of(image) for image in images])
    turn = np.angle(seen / e)
    print("turned by", abs(turn).max())
    assert abs(turn).max() < 0.2
    assert np.ptp(np.angle(e)) > 1


def check_flux(name, pairs):
    """The flux of galaxies (B, C) is that of the drawn one, as a star has it."""
    galsim = pytest.importorskip("galsim")
    survey = get_survey(name)
    random, scene, ebv, conditions = group_of(name, None)
    _, position = sky.place_on_pixels(
        survey, scene.position, random("registration", name)
    )
    response = 10 ** (-0.4 * (sky.extinction(survey, ebv) + conditions.zero_point))
    fluxes = sky.component_fluxes(survey, scene.sources)[:, None] * response
    worst = 0.0
    for row in (~pairs.truth["is_star"]).nonzero()[:, 0].tolist():
        star = galsim_pairs._paint(
            survey,
            conditions,
            [lambda flux: galsim.DeltaFunction(flux=sum(flux))],
            fluxes[row],
            position[row],
        )
        ratio = pairs.noiseless[name][row].sum((1, 2)) / star.sum((1, 2))
        worst = max(worst, (ratio - 1).abs().max().item())
    print(f"{name}: {worst:.4f}")
    assert worst < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_stamps_keep_the_flux(name, tmp_path):
    folder = stamp_folder(tmp_path, 0.7, 7.0, 0.0)
    hst = {"morphology": "hst", "stamps": folder}
    check_flux(name, render_pairs(SIZE, [name], **hst, **FEW))


def test_real_stamps_keep_the_flux(real_data):
    folder = real_data.parent / "population"
    if not folder.is_dir():
        pytest.skip("no folder 'population' beside the real images")
    hst = {"morphology": "hst", "stamps": folder}
    pairs = render_pairs(SIZE, NAMES, **hst, **FEW)
    for name in NAMES:
        check_flux(name, pairs)
    galaxy = ~pairs.truth["is_star"]
    size = 10 ** pairs.truth["log_size"][galaxy]
    assert ((size > 0.05) & (size < 1.5)).all()

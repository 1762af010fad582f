# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""SPREAD_MODEL and the flag of stars."""

import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from astro_disentangle import FLAGS, decode_flags, get_survey
from astro_disentangle.data.measure import render_psf
from astro_disentangle.data.read import read_cutouts
from astro_disentangle.data.stellarity import spread_model, spread_size, star_flag
from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation import simulate
from astro_disentangle.simulation.instruments import draw_conditions
from astro_disentangle.simulation.render import psf_transform

SCALE, FWHM = 0.262, 1.2


def gaussian(sigma, x, y, ratio=1.0, size=33):
    """An image of sum 1 with its centre at a pixel; ``ratio`` is sigma y over x."""
    axis = np.arange(size)
    image = np.exp(
        -(((axis - x) / sigma) ** 2 + ((axis[:, None] - y) / sigma / ratio) ** 2) / 2
    )
    return image / image.sum()


def spread(image, psf, fwhm, place=(16, 16), noise=1e-5):
    good = np.ones((1, *image.shape), bool)
    known = [psf], np.array([fwhm])
    return spread_model(image[None], good, np.array([noise]), known, place)


@pytest.mark.parametrize("offset", [(0, 0), (0.3, -0.4), (1.3, -1.2)])
@pytest.mark.parametrize("sigma", [1.4, 2.2])
def test_a_star_has_no_spread_wherever_it_is(offset, sigma):
    psf = gaussian(sigma, 15.5, 15.5, size=32)
    star = gaussian(sigma, 16 + offset[0], 16 + offset[1])
    found, error, _ = spread(star, psf, 2.3548 * sigma)
    assert abs(found[0]) < 1e-4
    assert error[0] < 1e-4


def test_the_model_itself_and_its_opposite():
    """A source that is G has the spread of G, by the formula in full."""
    psf, size = gaussian(2.0, 16, 16), 33
    fwhm = 2.3548 * 2.0
    ky, kx = (2 * np.pi * f for f in (np.fft.fftfreq(size), np.fft.rfftfreq(size)))
    square = ky[:, None] ** 2 + kx**2
    disc = (1 + (fwhm / 16) ** 2 * square) ** -1.5
    wide = np.fft.irfft2(np.fft.rfft2(psf) * disc, s=(size, size))
    axis = np.arange(size) - 16
    inside = axis**2 + axis[:, None] ** 2 < (1.5 * fwhm) ** 2
    phi, model = psf[inside], wide[inside]
    weight = np.linalg.inv(np.eye(len(phi)) + 0.25**2)
    ratio = (model @ weight @ phi) / (phi @ weight @ phi)
    expected = (model @ weight @ model) / (phi @ weight @ model) - ratio
    found, error, signal = spread(wide, psf, fwhm)
    assert np.isclose(found[0], expected, rtol=0.01)
    template = weight @ (model - ratio * phi)
    sigma = 1e-5 * np.sqrt(model @ template) / (phi @ weight @ model)
    assert np.isclose(error[0], sigma, rtol=0.01)
    assert np.isclose(signal[0], phi @ model / 1e-5 / np.sqrt(phi @ phi), rtol=0.01)
    assert spread(gaussian(1.9, 16, 16), psf, fwhm)[0][0] < -0.001


def test_errors_are_those_of_the_noise():
    rng = np.random.default_rng(0)
    star, psf = gaussian(2.0, 16.3, 15.8), gaussian(2.0, 16, 16)
    noise = 0.0008
    draws = [
        spread(star + rng.normal(0, noise, star.shape), psf, 4.71, noise=noise)
        for _ in range(300)
    ]
    found, error, signal = np.array(draws)[:, :, 0].T
    assert 60 < signal.mean() < 300
    assert np.isclose(found.std(), error.mean(), rtol=0.12)
    assert abs(found.mean()) < 4 * error.mean() / np.sqrt(300)


def test_a_background_is_no_spread():
    star = gaussian(2.0, 16, 16)
    noise = star.max() / 20
    plain, raised = (
        spread(star + level * noise, gaussian(2.0, 16, 16), 4.71, noise=noise)[0][0]
        for level in (0, 0.5)
    )
    assert abs(raised - plain) < 0.0025


def test_bands_of_any_seeing_agree_on_the_size():
    sizes = []
    for sigma in (1.8, 2.4, 3.0):
        psf = gaussian(sigma, 16, 16)
        image = gaussian(np.hypot(sigma, 0.4), 16, 16)
        known = [psf], np.array([2.3548 * sigma * SCALE])
        seen = image[None], image[None] > -1, np.array([1e-6])
        sizes.append(spread_size(*seen, known, (16, 16, SCALE))[0])
    assert np.ptp(sizes) < 0.1 * np.mean(sizes)


def window(image, noise=0.002, seed=0):
    """A noisy window in two bands, and its known PSF."""
    rng = np.random.default_rng(seed)
    pixels = image + rng.normal(0, noise, (2, *image.shape))
    psf = [render_psf(FWHM, 3.0, SCALE, 33)] * 2, np.full(2, FWHM)
    return [pixels, np.ones(pixels.shape, bool), np.full(2, noise), psf]


STAR = 3 * render_psf(FWHM, 3.0, SCALE, 33)
PLACE = (16.0, 16.0, SCALE)


def test_what_is_told_and_what_is_not():
    seen = window(STAR)
    assert star_flag(*seen, PLACE) == FLAGS.POINT_SOURCE
    assert star_flag(*window(3 * render_psf(1.5, 3.0, SCALE, 33)), PLACE) == 0
    assert star_flag(*window(3 * render_psf(0.8, 3.0, SCALE, 33)), PLACE) == 0
    # Too faint.
    assert star_flag(*window(STAR / 30), PLACE) == 0
    # Another source, half an arcsec and two arcsec away.
    for y in (17.8, 24.0):
        assert star_flag(*seen, (16.0, y, SCALE)) == 0
    # At the edge of the window there is no telling.
    assert star_flag(*seen, (3.0, 16.0, SCALE)) == 0
    # The PSF of one band is enough, that of none is not.
    one = [seen[3][0][0], None], np.array([FWHM, np.nan])
    assert star_flag(*seen[:3], one, PLACE) == FLAGS.POINT_SOURCE
    none = [None, None], np.full(2, np.nan)
    assert star_flag(*seen[:3], none, PLACE) == 0
    unknown = np.full(2, np.nan)
    assert star_flag(*seen[:2], unknown, seen[3], PLACE) == 0


def test_the_least_signal_to_noise():
    _, good, _, psf = window(STAR)
    pixels, noise = np.stack([STAR, STAR]), np.ones(2)
    signal = np.sqrt(2 * (STAR.astype(float) ** 2).sum())
    for wanted, flag in ((46, 0), (54, FLAGS.POINT_SOURCE)):
        assert star_flag(pixels, good, noise * signal / wanted, psf, PLACE) == flag


def test_bad_pixels():
    star = gaussian(2.0, 16, 16)[None]
    seen = np.ones(star.shape, bool)
    seen[:, :, 20] = False
    known = [star[0]], np.array([4.71])
    found, *_ = spread_model(star * seen, seen, np.array([1e-5]), known, (16, 16))
    assert abs(found[0]) < 1e-4
    pixels, good, noise, psf = window(STAR)
    away = good.copy()
    away[:, :, 21] = False
    light = np.where(away, pixels, 0)
    assert star_flag(light, away, noise, psf, PLACE) == FLAGS.POINT_SOURCE
    core = good.copy()
    core[:, 16, 17] = False
    assert star_flag(np.where(core, pixels, 0), core, noise, psf, PLACE) == 0
    core[1] = True
    light = np.where(core, pixels, 0)
    assert star_flag(light, core, noise, psf, PLACE) == FLAGS.POINT_SOURCE


def test_saturated_stars_are_left():
    full = np.minimum(STAR, 0.4 * STAR.max())
    assert star_flag(*window(full), PLACE) == 0


# --- in reading --------------------------------------------------------------------

LEGACY = get_survey("legacy")


def cutout(psf=None, meta=None, flip=1, image=None):
    """Two bands of a star, north up; ``flip=-1`` has east to the right."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [25.5, 25.5]
    wcs.wcs.cdelt = [-flip * SCALE / 3600, SCALE / 3600]
    image = render_psf(FWHM, 3.0, SCALE, 50) if image is None else image
    rng = np.random.default_rng(1)
    return {
        band: CCDData(
            100 * image + rng.normal(0, 0.05, image.shape),
            unit="nmgy",
            wcs=wcs,
            psf=psf,
            uncertainty=StdDevUncertainty(np.full(image.shape, 0.05)),
            meta=meta or {},
        )
        for band in "gr"
    }


def is_flagged(cutouts, **options):
    read = read_cutouts(cutouts, "legacy", **options)
    return "POINT_SOURCE" in decode_flags(read.batch.flags[0])


def test_reading_with_an_image_a_width_or_no_psf():
    assert is_flagged(cutout(render_psf(FWHM, 3.0, SCALE)))
    assert is_flagged(cutout(meta={"PSF_FWHM": FWHM}))
    assert is_flagged(cutout(np.zeros((0, 0)), {"PSF_FWHM": FWHM}))
    assert not is_flagged(cutout())
    assert not is_flagged(cutout(render_psf(1.0, 3.0, SCALE)))
    assert not is_flagged(cutout(meta={"PSF_FWHM": 1.0}))
    known = cutout(render_psf(FWHM, 3.0, SCALE))
    assert is_flagged({**known, "r": cutout()["r"]})
    where = SkyCoord(150.0, 2.0 + 0.2 / 3600, unit="deg")
    assert is_flagged(known, position=where)


@pytest.mark.parametrize("flip", [1, -1])
def test_the_psf_is_turned_with_the_image(flip):
    """An oblique PSF, in images with east to the left and to the right."""
    y, x = np.indices((50, 50)) - 24.5

    def oblique(x, y):
        return np.exp(-((x + y) ** 2 / 2.5**2 + (x - y) ** 2 / 1.6**2) / 4)

    image = oblique(x, y)
    py, px = np.indices((25, 25)) - 12
    psf = oblique(px, py)
    star = cutout(psf / psf.sum(), flip=flip, image=image / image.sum())
    assert is_flagged(star)
    crossed = cutout(psf[::-1] / psf.sum(), flip=flip, image=image / image.sum())
    assert not is_flagged(crossed)


def test_a_row_does_not_depend_on_the_others():
    star, galaxy = (cutout(render_psf(w, 3.0, SCALE)) for w in (FWHM, 0.7))
    flags = read_cutouts([galaxy, star, galaxy], "legacy").batch.flags
    assert flags[1] & FLAGS.POINT_SOURCE
    assert not (flags[0] | flags[2]) & FLAGS.POINT_SOURCE


def psf_images(survey, conditions, size=31):
    """Images of the PSF of simulated conditions, (G, C, size, size)."""
    transfer = psf_transform(survey, conditions)
    images = torch.fft.irfft2(transfer, s=(transfer.shape[-2],) * 2)
    return images.roll((size // 2, size // 2), (-2, -1))[..., :size, :size].numpy()


@pytest.mark.parametrize(("name", "recall"), [("hsc", 0.95), ("legacy", 0.75)])
def test_simulated_stars_and_galaxies(monkeypatch, name, recall):
    """Of a signal to noise of 50 on; benchmarks/stellarity.py has the figures."""
    share = "astro_disentangle.simulation.scene._CENTRAL_STAR_SHARE"
    monkeypatch.setattr(share, 0.4)
    survey = get_survey(name)
    conditions = draw_conditions(survey, 80, torch_generator(5, "stars"))
    psf = psf_images(survey, conditions)
    sky = simulate(80, 5, [name], seed=5, conditions={name: conditions})
    batch, star = sky.batches[name], sky.truth["is_star"].numpy()
    middle = slice(survey.stamp_size // 2 - 10, survey.stamp_size // 2 + 11)
    found, bright = [], []
    for row, group in enumerate(sky.group.tolist()):
        seen = [getattr(batch, n)[row].numpy() for n in ("pixels", "good", "noise")]
        known = list(psf[group]), batch.psf_fwhm[row].numpy()
        place = (*batch.affine[row, :, 2].tolist(), survey.pixel_scale)
        found.append(star_flag(*seen, known, place) != 0)
        image, model = sky.noiseless[name][row].numpy(), psf[group][:, 5:26, 5:26]
        fit = (image[:, middle, middle] * model).sum((1, 2)) / seen[2]
        fit = np.nansum(fit**2 / (model**2).sum((1, 2))) ** 0.5
        bright.append(fit > 50)
    found, bright = np.array(found), np.array(bright)
    assert (bright & star).sum() > 80
    assert found[bright & star].mean() >= recall
    assert found[bright & ~star].mean() < 0.025


# --- real images -------------------------------------------------------------------


def test_packaged_samples():
    from astro_disentangle.samples import load_sample, sample_names

    for name in sample_names():
        flags = read_cutouts(load_sample(name)).batch.flags
        assert not flags[0] & FLAGS.POINT_SOURCE, name


@pytest.mark.filterwarnings("ignore")
def test_a_real_field(real_data):
    from astropy.table import Table

    folder = real_data / "hsc_field_with_variance"
    image = CCDData.read(folder / "r.fits")
    catalog = Table.read(folder / "catalog.ecsv")
    catalog = catalog[(catalog["edge_arcsec"] > 4) & (catalog["snr"] > 100)]
    places = [(row["x"], row["y"]) for row in catalog]
    flags = read_cutouts([{"r": image}] * len(places), "hsc", places).batch.flags
    found = (flags.numpy() & FLAGS.POINT_SOURCE) != 0
    r50 = np.array(catalog["r50_arcsec"])
    assert found.any()
    assert (r50[found] < 0.65).all()
    assert not found[r50 > 0.7].any()

# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs in memory: bad ones are refused or flagged, good ones are read.

Each test carries the number of its promise, R5 to R14; ``sabotage.py`` breaks each
promise once to show that its test sees it.
"""

import copy
import inspect
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from photutils.aperture import CircularAperture
from reliability.cases import (
    NOISE,
    SHAPE,
    WINDOW,
    check_rows,
    cutout,
    fingerprint,
    galaxy,
    latents,
    peak_memory,
    psf_image,
    sky_wcs,
    spread_of,
    within,
)

from astro_disentangle import (
    FLAGS,
    CutoutError,
    DisentangleError,
    Disentangler,
    PairedCutouts,
    SurveyCutout,
    SurveyMismatchError,
    decode_flags,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.samples import load_sample, sample_names

HUGE = (100_000, 100_000)


@pytest.fixture(scope="module")
def pairs():
    """Simulated galaxies that both surveys observed."""
    return simulate_pairs(12, random_state=5)


@pytest.fixture(scope="module")
def good(model):
    """Latents of the good cut-out, alone in its batch."""
    return model.transform(cutout(), survey="legacy")


# --- R5: what is no image is refused, what is no good image is flagged -----------


def odd(array):
    """An image whose uncertainty is ``array``."""
    return cutout(uncertainty=StdDevUncertainty(array))


def full(value, shape=SHAPE):
    return np.full(shape, value)


CUBE = np.stack([galaxy()] * 4)
REFUSED = {
    "uncertainty of another shape": (lambda: odd(full(0.5, (3, 3))), "uncertainty.*50"),
    "uncertainty of one row": (lambda: odd(full(0.5, 50)), "uncertainty.*50"),
    "uncertainty of one number": (lambda: odd(np.array(0.5)), "uncertainty.*50"),
    "uncertainty of strings": (lambda: odd(full("a")), "uncertainty.*<U1"),
    "uncertainty of complex": (lambda: odd(full(1j)), "uncertainty.*complex"),
    "uncertainty of objects": (lambda: odd(full(None)), "uncertainty.*object"),
    "uncertainty of unknown kind": (
        lambda: cutout(uncertainty=UnknownUncertainty(full(0.5))),
        "uncertainty.*unknown",
    ),
    "mask of another shape": (lambda: cutout(mask=full(False, (3, 3))), "mask.*3, 3"),
    "mask of strings": (lambda: cutout(mask=full("good")), "mask.*<U4"),
    "mask of fractions": (lambda: cutout(mask=full(0.5)), "mask.*float64"),
    "PSF of strings": (lambda: cutout(psf=full("a", (9, 9))), "psf.*<U1"),
    "PSF of complex numbers": (lambda: cutout(psf=psf_image() * 1j), "psf.*complex"),
    "PSF of rows of unlike length": (
        lambda: NDData(CUBE, psf=[[1], [2, 3]], meta={"bands": "griz"}),
        "psf",
    ),
    "bands are a number": (lambda: NDData(CUBE, meta={"bands": 3}), "bands.*3"),
    "strings": (lambda: {"r": full("1.0")}, "'r'.*<U3"),
    "objects": (lambda: {"r": full(None)}, "'r' cannot be read"),
    "complex numbers": (lambda: {"r": full(1j)}, "'r'.*complex128"),
    "truth values": (lambda: {"r": full(True)}, "'r'.*bool"),
    "dates": (lambda: {"r": full(np.datetime64("2026-01-01"))}, "'r'.*datetime64"),
    "a number": (lambda: {"r": np.float32(1)}, r"'r'.*\(\)"),
    "one dimension": (lambda: {"r": np.ones(2500)}, r"'r'.*\(2500,\)"),
    "four dimensions": (
        lambda: NDData(np.ones((1, 4, 50, 50)), meta={"bands": list("griz")}),
        r"\(1, 4, 50, 50\)",
    ),
    "no pixels": (lambda: {"r": np.ones((0, 50))}, r"'r'.*\(0, 50\)"),
    "one pixel": (lambda: {"r": np.ones((1, 1))}, "half of the field.*0.26"),
    "a length": (lambda: cutout(unit="m"), "'m'"),
    "surface brightness": (lambda: cutout(unit="nmgy / arcsec2"), "nmgy / arcsec2"),
    "a band twice": (lambda: cutout(bands=["r", "R"]), "once.*'r' and 'R'"),
    "a band with another's header": (
        lambda: cutout(bands="g", meta={"BAND": "r"}),
        "'g'.*'r'",
    ),
}

FLAGGED = {
    "negative uncertainty": (lambda: odd(full(-0.5)), ["UNUSABLE"]),
    "zero uncertainty": (lambda: odd(full(0.0)), ["UNUSABLE"]),
    "NaN uncertainty": (lambda: odd(full(np.nan)), ["UNUSABLE"]),
    "infinite variance": (
        lambda: cutout(uncertainty=VarianceUncertainty(full(np.inf))),
        ["UNUSABLE"],
    ),
    "no weight": (
        lambda: cutout(uncertainty=InverseVariance(full(0.0))),
        ["UNUSABLE"],
    ),
    "all masked by one value": (lambda: cutout(mask=True), ["UNUSABLE"]),
    "no unit": (lambda: cutout(unit=None), ["ASSUMED_UNIT"]),
    "a missing band": (lambda: cutout(bands="giz"), ["MISSING_BANDS"]),
}


ODD_META = {
    "bytes that are no text": {"OBJECT": b"\xff\xfe"},
    "an array as name": {"OBJECT": np.ones(3)},
    "a list as name": {"OBJECT": [1, 2]},
    "a masked name": {"OBJECT": np.ma.masked},
    "a list as survey": {"SURVEY": ["legacy"]},
    "a number as survey": {"SURVEY": 3},
    "an array as zero point": {"MAGZERO": np.ones(3)},
    "an array as pixel scale": {"PIXSCALE": np.ones(2)},
    "a length as PSF": {"PSF_FWHM": 1 * u.m},
    "a far galaxy": {"XGALAXY": 1e300, "YGALAXY": 2},
}


@pytest.mark.parametrize("survey", ["legacy", None])
@pytest.mark.parametrize("case", ODD_META)
def test_r05_odd_headers_are_read_or_refused(model, case, survey):
    meta = ODD_META[case]
    if survey is None:
        meta = {"SURVEY": "legacy"} | meta
    image = cutout(unit="adu", meta=meta, wcs=None, psf=None)
    try:
        table = model.transform(image, survey=survey)
    except DisentangleError:
        return
    check_rows(table)


@pytest.mark.parametrize("noise", [1e20, 1e38, 1e150])
def test_r05_a_galaxy_below_the_noise_is_no_clean_row(model, noise):
    error = StdDevUncertainty(np.full(SHAPE, noise))
    table = model.transform(cutout(uncertainty=error), survey="legacy")
    check_rows(table)
    assert table["flags"][0] & (FLAGS.UNUSABLE | FLAGS.BLANK)


@pytest.mark.parametrize(("given", "name"), [(0, "0"), (b"M 31", "M 31"), ("", None)])
def test_r05_names_are_kept(model, good, given, name):
    """A catalogue may count from zero."""
    table = model.transform(cutout(meta={"OBJECT_ID": given}), survey="legacy")
    assert table["object_id"][0] == (name or good["object_id"][0])


ARGUMENTS = {
    "donors are a number": {"donors": 3},
    "no donor": {"donors": []},
    "no donor is usable": {"donors": cutout(np.full(SHAPE, np.nan))},
    "fewer positions": {"position": [(24.5, 24.5)]},
    "more positions": {"position": [(24.5, 24.5)] * 3},
    "position is text": {"position": "middle"},
    "position is beyond all numbers": {"position": (10**400, 3)},
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_r05_other_arguments_are_refused(model, case):
    with pytest.raises(DisentangleError):
        model.transform([cutout()] * 2, survey="legacy", **ARGUMENTS[case])


@pytest.mark.parametrize("like", [3, [], [None], cutout(np.full(SHAPE, np.nan))])
def test_r05_what_shows_no_conditions_is_refused(model, like):
    with pytest.raises(DisentangleError):
        model.translate(
            cutout(), survey="legacy", source="legacy", like=like, n_steps=1
        )


def test_r05_huge_psf_images(model, good):
    """The sky about a PSF of 16 million pixels takes neither time nor memory."""
    psf = np.pad(psf_image(), 2000)
    images = cutout(psf=psf)
    before = peak_memory()
    with within(2):
        table = model.transform(images, survey="legacy")
    assert peak_memory() - before < 200
    assert np.abs(latents(table) - latents(good)).max() <= 1e-3 * spread_of(good)


def test_r05_counts():
    assert len(REFUSED) + len(FLAGGED) >= 32


@pytest.mark.parametrize("case", REFUSED)
def test_r05_bad_images_are_refused(model, case):
    make, message = REFUSED[case]
    bad = make()
    with within(2), pytest.raises(DisentangleError, match=message):
        model.transform(bad, survey="legacy")


@pytest.mark.parametrize("case", FLAGGED)
def test_r05_poor_images_are_flagged(model, case):
    make, expected = FLAGGED[case]
    table = model.transform(make(), survey="legacy")
    check_rows(table)
    names = set(decode_flags(table["flags"][0]))
    assert set(expected) <= names, names
    assert ("UNUSABLE" in names) == ("UNUSABLE" in expected), names


@pytest.mark.parametrize("case", FLAGGED)
def test_r05_poor_images_are_not_painted_as_good_ones(model, case):
    make, expected = FLAGGED[case]
    view = model.translate(make(), survey="hsc", source="legacy", n_steps=1)
    assert np.isfinite(view.data).all() == ("UNUSABLE" not in expected)
    assert set(expected) <= set(decode_flags(view.flags))
    if "UNUSABLE" in expected:
        assert np.isnan(view.data).all() and view.mask.all()


@pytest.mark.parametrize("with_maps", [False, True])
def test_r05_huge_images_are_read_in_the_window_alone(model, good, tmp_path, with_maps):
    """40 GB of which 10 kB are written."""
    image = np.memmap(tmp_path / "sky", np.float32, "w+", shape=HUGE)
    image[60_000:60_050, 30_000:30_050] = galaxy()
    options = {"wcs": None, "uncertainty": None}
    if with_maps:
        maps = {name: np.broadcast_to(np.float32(NOISE), HUGE) for name in ("std",)}
        options["uncertainty"] = StdDevUncertainty(maps["std"], copy=False)
        options["mask"] = np.broadcast_to(False, HUGE)
    whole = cutout(image, bands="griz", **options)
    with within(2):
        table = model.transform(whole, survey="legacy", position=(30_024.5, 60_024.5))
    check_rows(table)
    assert not table["flags"][0] & (FLAGS.UNUSABLE | FLAGS.PADDED | FLAGS.BLANK)
    if with_maps:
        difference = np.abs(latents(table) - latents(good)).max()
        assert difference <= 1e-5 * spread_of(good)


def test_r05_order_of_bands_does_not_matter(model, good):
    bands = cutout()
    for number, band in enumerate(bands):
        bands[band] = cutout(galaxy(seed=number), bands=band)[band]
    swapped = {band: bands[band] for band in "zgir"}
    a, b = (model.transform(form, survey="legacy") for form in (bands, swapped))
    assert np.array_equal(latents(a), latents(b))
    assert not np.array_equal(latents(a), latents(good))


def test_r05_one_name_for_two_galaxies(model):
    twins = [cutout(galaxy(seed=seed), meta={"OBJECT": "twin"}) for seed in (0, 1)]
    table = model.transform(twins, survey="legacy")
    assert list(table["object_id"]) == ["twin", "twin"]
    alone = [model.transform(twin, survey="legacy") for twin in twins]
    for row in range(2):
        difference = np.abs(latents(table)[row] - latents(alone[row])[0]).max()
        assert difference <= 1e-5 * spread_of(table)
    views = model.translate(twins, survey="hsc", source="legacy", n_steps=1)
    assert not np.allclose(views[0].data, views[1].data)


# --- R6: awkward but good ---------------------------------------------------------


def strided(image):
    wide = np.zeros((100, 100), image.dtype)
    wide[::2, ::2] = image
    return wide[::2, ::2]


def read_only(image):
    image = image.copy()
    image.flags.writeable = False
    return image


def on_disk(image, folder):
    mapped = np.memmap(folder / "image", np.float32, "w+", shape=image.shape)
    mapped[:] = image
    return mapped


ARRAYS = {
    "big-endian float32": lambda image: image.astype(">f4"),
    "big-endian float64": lambda image: image.astype(">f8"),
    "float16": lambda image: image.astype(np.float16),
    "float64": lambda image: image.astype(np.float64),
    "every other pixel": strided,
    "Fortran order": np.asfortranarray,
    "backwards in memory": lambda image: image[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
}


@pytest.mark.parametrize("case", ARRAYS)
def test_r06_arrays_of_any_layout(model, good, case):
    image = ARRAYS[case](galaxy())
    assert np.array_equal(image, galaxy())
    noise = ARRAYS[case](np.full(SHAPE, NOISE, np.float32))
    table = model.transform(
        cutout(image, uncertainty=StdDevUncertainty(noise)), survey="legacy"
    )
    assert np.abs(latents(table) - latents(good)).max() <= 1e-6 * spread_of(good)
    assert table["flags"][0] == good["flags"][0]


def test_r06_memory_map(model, good, tmp_path):
    table = model.transform(cutout(on_disk(galaxy(), tmp_path)), survey="legacy")
    assert np.abs(latents(table) - latents(good)).max() <= 1e-6 * spread_of(good)


@pytest.mark.parametrize("form", ["list", "Quantity", "masked array"])
def test_r06_bare_images(model, form):
    mask = np.zeros(SHAPE, bool)
    mask[24:28, 20:23] = form == "masked array"
    image = np.where(mask, np.float32(99), galaxy())
    options = {"uncertainty": None, "wcs": None, "psf": None}
    plain = model.transform(cutout(galaxy(), mask=mask, **options), survey="legacy")
    bare = {
        "list": image.tolist,
        "Quantity": lambda: image * u.nmgy,
        "masked array": lambda: np.ma.MaskedArray(image, mask),
    }[form]()
    table = model.transform(dict.fromkeys("griz", bare), survey="legacy")
    assert np.abs(latents(table) - latents(plain)).max() <= 1e-6 * spread_of(plain)
    assumed = 0 if form == "Quantity" else FLAGS.ASSUMED_UNIT
    assert table["flags"][0] == plain["flags"][0] | assumed


@pytest.mark.parametrize("scaled", [False, True])
def test_r06_integers_with_blank(model, tmp_path, scaled):
    """A real file with BLANK, and BSCALE and BZERO, against its numbers."""
    counts = np.round(galaxy() * 8).astype(np.int16)
    counts[20:24, 22:26] = -32768
    header = sky_wcs().to_header()
    header["BUNIT"] = "0.125 nmgy"
    header["BLANK"] = -32768
    zero = 0.0
    if scaled:
        header["BUNIT"], header["BSCALE"], header["BZERO"] = "nmgy", 0.125, 4.0
        zero = 4.0
    path = tmp_path / "counts.fits"
    # astropy would scale the numbers once more when it is given the keywords.
    hdu = fits.PrimaryHDU(counts)
    hdu.header.update(header)
    hdu.writeto(path)
    image = CCDData.read(path)
    assert np.isnan(image.data[22, 24])
    numbers = np.where(counts == -32768, np.nan, counts / np.float32(8) + zero)
    assert np.array_equal(
        image.data * (1 if scaled else 0.125), numbers, equal_nan=True
    )
    options = {"uncertainty": None, "psf": None}
    plain = cutout(numbers.astype(np.float32), **options)
    plain = model.transform(plain, survey="legacy")
    table = model.transform(dict.fromkeys("griz", image), survey="legacy")
    assert np.abs(latents(table) - latents(plain)).max() <= 1e-6 * spread_of(plain)
    check_rows(table)


# --- R7 to R10: non-finite and masked pixels ---------------------------------------

VALUES = {
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "1e38": 1e38,
    "denormal": 1e-40,
}
#: Places within the image, and the flags that so many bad pixels must give.
PLACES = {
    "pixel": ((25, 24), []),
    "row": ((30, slice(None)), []),
    "edge": ((slice(None), slice(9, 12)), ["BAD_PIXELS"]),
    "centre": ((slice(21, 29), slice(21, 29)), ["BAD_PIXELS"]),
    "all": ((slice(None), slice(None)), ["BAD_PIXELS", "UNUSABLE"]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", VALUES)
def test_r07_non_finite_pixels(model, value, place):
    """They count as masked: what stands in them does not matter."""
    where, expected = PLACES[place]
    image = galaxy()
    image[where] = VALUES[value]
    table = model.transform(cutout(image), survey="legacy")
    check_rows(table)
    names = decode_flags(table["flags"][0])
    if value != "denormal":
        mask = np.zeros(SHAPE, bool)
        mask[where] = True
        other = model.transform(cutout(mask=mask), survey="legacy")
        assert {"BAD_PIXELS", "UNUSABLE"} & set(names) == set(expected)
    else:
        image[where] = 0
        other = model.transform(cutout(image), survey="legacy")
        unusable = {"UNUSABLE", "BAD_PIXELS"}
        assert unusable & set(names) == (unusable if place == "all" else set())
    assert np.array_equal(latents(table), latents(other), equal_nan=True)
    assert table["flags"][0] == other["flags"][0]


def damaged(view, rng):
    """A cut-out with something wrong in some of its bands, in place."""
    data, error = view.data, view.uncertainty.array
    bands = rng.random(len(data)) < rng.choice([0.3, 1.0])
    where = np.zeros(data.shape, bool)
    where[bands] = rng.random(data[bands].shape) < rng.choice([0.01, 0.1, 0.6, 1.0])
    wrong = rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e-40, 1e38, -3e38])
    with np.errstate(over="ignore"):
        target = rng.choice(["data", "error", "both", "mask", "scale", "none"])
        if target in ("data", "both"):
            data[where] = wrong
        if target in ("error", "both"):
            error[where] = wrong
        if target == "mask":
            view.mask |= where
        if target == "scale":
            data *= np.float32(10.0 ** rng.uniform(-12, 38))
    if rng.random() < 0.3:
        view.uncertainty = None
    if rng.random() < 0.3:
        view.psf = np.full_like(view.psf, rng.choice([np.nan, 0, -1, 1]))
    return view


def check_random_batches(model, pairs, seeds):
    for seed in seeds:
        rng = np.random.default_rng([8, seed])
        survey = str(rng.choice(pairs.surveys))
        views = pairs.cutouts(survey)
        rows = rng.integers(len(views), size=rng.integers(1, 6))
        batch = [damaged(views[int(row)], rng) for row in rows]
        check_rows(model.transform(batch), f"batch of seed {seed}")
        if seed % 10 == 0:
            target = next(name for name in pairs.surveys if name != survey)
            painted = model.translate(batch, survey=target, n_steps=1)
            for view in painted:
                unusable = bool(view.flags & FLAGS.UNUSABLE)
                assert np.isfinite(view.data).all() == (not unusable), seed
                assert np.isnan(view.data).all() == unusable, seed


@pytest.mark.parametrize("block", range(10))
def test_r08_nan_never_enters_silently(model, pairs, block):
    check_random_batches(model, pairs, range(20 * block, 20 * (block + 1)))


@pytest.mark.nightly
def test_r08_nan_never_enters_silently_in_10000_batches(model, pairs):
    check_random_batches(model, pairs, range(200, 10_200))


def test_r08_random_batches_are_of_all_kinds(model, pairs):
    """The draws above reach both sides of the promise."""
    flags = []
    for seed in range(100):
        rng = np.random.default_rng([8, seed])
        views = pairs.cutouts(str(rng.choice(pairs.surveys)))
        rng.integers(len(views), size=rng.integers(1, 6))
        flags.append(int(model.transform(damaged(views[0], rng))["flags"][0]))
    share = np.mean([bool(value & FLAGS.UNUSABLE) for value in flags])
    assert 0.1 < share < 0.6
    assert any(
        value & FLAGS.BAD_PIXELS and not value & FLAGS.UNUSABLE for value in flags
    )


def bad_rows():
    """Ten kinds of a bad row, all on the grid of the good ones."""
    half = np.zeros(SHAPE, bool)
    half[:, :25] = True
    sky = galaxy(flux=0)
    weight = np.full(SHAPE, 4.0)
    weight[half] = -1
    return {
        "nan": cutout(full(np.float32(np.nan))),
        "inf": cutout(full(np.float32(np.inf))),
        "-inf": cutout(full(np.float32(-np.inf))),
        "1e38": cutout(full(np.float32(1e38))),
        "zeros": cutout(full(np.float32(0))),
        "masked": cutout(mask=full(True)),
        "half masked": cutout(mask=half),
        "half without weight": cutout(uncertainty=InverseVariance(weight)),
        "no galaxy": cutout(sky),
        "1e12 times brighter": cutout(galaxy() * np.float32(1e12)),
    }


BAD = bad_rows()


@pytest.fixture(scope="module")
def neighbours(model):
    """Five good rows, their latents and their translations."""
    rows = [cutout(galaxy(seed=seed, flux=20 + 10 * seed)) for seed in range(5)]
    table = model.transform(rows, survey="legacy")
    views = model.translate(rows, survey="hsc", source="legacy", n_steps=1)
    return rows, latents(table), [view.data for view in views]


@pytest.mark.parametrize("position", [0, 2, 4])
@pytest.mark.parametrize("kind", BAD)
def test_r09_a_bad_row_leaves_the_others_alone(model, neighbours, kind, position):
    rows, numbers, pixels = neighbours
    mixed = [*rows[:position], BAD[kind], *rows[position + 1 :]]
    table = model.transform(mixed, survey="legacy")
    check_rows(table)
    others = np.arange(5) != position
    assert np.array_equal(latents(table)[others], numbers[others])
    assert not np.array_equal(latents(table)[position], numbers[position])
    views = model.translate(mixed, survey="hsc", source="legacy", n_steps=1)
    for row in np.flatnonzero(others):
        assert np.array_equal(views[row].data, pixels[row])


@pytest.fixture(scope="module")
def order():
    """Pixels of the window in the order in which they are masked."""
    return np.random.default_rng(10).permutation(32 * 32)


def share_masked(share, order):
    mask = np.zeros((32, 32), bool)
    mask.flat[order[: round(share * 1024)]] = True
    whole = np.zeros(SHAPE, bool)
    whole[WINDOW] = mask
    return whole


@pytest.mark.parametrize("percent", range(0, 101, 10))
def test_r10_masked_share(model, order, percent):
    table = model.transform(
        cutout(mask=share_masked(percent / 100, order)), survey="legacy"
    )
    check_rows(table)
    names = decode_flags(table["flags"][0])
    assert ("BAD_PIXELS" in names) == (percent > 5)
    if percent == 100:
        assert "UNUSABLE" in names and np.isnan(latents(table)).all()
    if percent == 0:
        assert names == []


def test_r10_flags_are_monotone(model, order):
    """Once set, no further masked pixel takes a flag away."""
    shares = np.linspace(0, 1, 101)
    rows = [cutout(mask=share_masked(share, order)) for share in shares]
    flags = np.asarray(model.transform(rows, survey="legacy")["flags"])
    for flag in (FLAGS.BAD_PIXELS, FLAGS.UNUSABLE):
        steps = np.diff((flags & flag) // flag)
        assert (steps >= 0).all() and steps.sum() == 1
    assert np.flatnonzero(flags & FLAGS.BAD_PIXELS)[0] == 6


# --- R11 and R12: units and surveys ------------------------------------------------

NMGY = get_survey("legacy").nanojansky
UNITS = {
    "nJy": ("nJy", NMGY, {}),
    "uJy": ("uJy", NMGY * 1e-3, {}),
    "nmgy": ("nmgy", 1.0, {}),
    "AB magnitude of zero": (u.Unit("mgy"), 1e-9, {}),
    "adu with zero point": ("adu", 10**1.8, {"MAGZERO": 27.0}),
    "electron with zero point": ("electron", 10**1.8, {"MAGZERO": 27.0}),
}


@pytest.mark.parametrize("case", UNITS)
def test_r11_units(model, good, case):
    unit, factor, meta = UNITS[case]
    table = model.transform(
        cutout(
            galaxy().astype(float) * factor, unit=unit, noise=NOISE * factor, meta=meta
        ),
        survey="legacy",
    )
    assert np.abs(latents(table) - latents(good)).max() <= 1e-5 * spread_of(good)
    assert table["flags"][0] == good["flags"][0]


@pytest.mark.parametrize("name", sample_names())
def test_r11_units_of_real_galaxies(model, name):
    images = load_sample(name)
    survey = next(iter(images.values())).meta["SURVEY"]
    known = model.transform(images, survey=survey)
    factor = get_survey(survey).nanojansky
    for band, image in images.items():
        error = image.uncertainty
        if error is not None:
            error = StdDevUncertainty(
                error.represent_as(StdDevUncertainty).array * factor
            )
        images[band] = CCDData(
            image.data * factor,
            unit="nJy",
            uncertainty=error,
            mask=image.mask,
            wcs=image.wcs,
            psf=image.psf,
            # That of the file belongs to its own unit.
            meta={k: v for k, v in image.meta.items() if k not in ("MAGZERO", "BUNIT")},
        )
    table = model.transform(images, survey=survey)
    assert np.abs(latents(table) - latents(known)).max() <= 1e-5 * spread_of(known)
    assert table["flags"][0] == known["flags"][0]


@pytest.mark.parametrize("unit", ["m", "nJy / sr", "K", "adu / s", "mag(AB)"])
def test_r11_other_units_are_refused(model, unit):
    wrong = cutout(unit=u.Unit(unit), uncertainty=None)
    with pytest.raises(CutoutError, match="convertible to nJy") as caught:
        model.transform(wrong, survey="legacy")
    assert str(u.Unit(unit)) in str(caught.value)


def bare(shape, bands, **options):
    options = {"uncertainty": None, "psf": None, "wcs": None, "unit": None} | options
    return cutout(galaxy(shape), bands, **options)


MISMATCHES = {
    "band of legacy": ("legacy", lambda: bare(SHAPE, "gy"), ["'y'", "'g', 'r'"]),
    "band of hsc": ("hsc", lambda: bare((64, 64), "gu"), ["'u'", "'g', 'r'"]),
    "coarse WCS of legacy": (
        "legacy",
        lambda: bare(SHAPE, "g", wcs=sky_wcs(0.8)),
        ["0.262", "0.8 "],
    ),
    "fine WCS of legacy": (
        "legacy",
        lambda: bare((300, 300), "g", wcs=sky_wcs(0.05, (300, 300))),
        ["0.262", "0.05 "],
    ),
    "coarse number of hsc": (
        "hsc",
        lambda: bare((64, 64), "g", meta={"PIXSCALE": 0.6}),
        ["0.168", "0.6 "],
    ),
    "fine quantity of hsc": (
        "hsc",
        lambda: bare((300, 300), "g", meta={"PIXSCALE": 40 * u.mas}),
        ["0.168", "0.04 "],
    ),
    "small for legacy": ("legacy", lambda: bare((12, 12), "g"), ["8.38", "3.14"]),
    "narrow for hsc": ("hsc", lambda: bare((200, 20), "g"), ["8.06", "3.36"]),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_r12_wrong_survey(model, case):
    survey, make, values = MISMATCHES[case]
    for call in (
        lambda: model.transform(make(), survey=survey),
        lambda: model.translate(make(), survey="hsc", source=survey, n_steps=1),
    ):
        with pytest.raises(SurveyMismatchError) as caught:
            call()
        for value in (*values, survey):
            assert value in str(caught.value)


# --- R14: inputs are never modified ------------------------------------------------


def forms():
    """One galaxy in every form a cut-out can have, with bad pixels and headers."""
    images = load_sample("legacy_faint")
    images["r"].data[20, 20] = np.nan
    images["g"].data[3, 3] = np.inf
    bands = cutout(galaxy(), mask=np.zeros(SHAPE, bool), meta={"OBJECT": "a"})
    bands["g"].mask[4, 4] = True
    data = np.stack([image.data for image in bands.values()])
    data[1, 30, 30] = np.nan
    options = {
        "wcs": sky_wcs(),
        "mask": np.zeros(data.shape, bool),
        "uncertainty": StdDevUncertainty(np.full(data.shape, NOISE)),
    }
    psf = np.stack([psf_image()] * 4)
    cube = NDData(
        data, unit="nmgy", psf=psf, meta={"bands": list("griz"), "x": [1]}, **options
    )
    own = SurveyCutout(
        data.copy(), survey="legacy", bands="g,r,i,z", psf=psf, meta={"a": 1}, **options
    )
    single = CCDData.read(_sample_path("legacy_round_r"))
    swapped = {band: NDData(galaxy().astype(">f8"), unit="nmgy") for band in "zg"}
    return {
        "files": images,
        "mapping": bands,
        "cube": cube,
        "own": own,
        "single": single,
        "big-endian": swapped,
        "bare": {"r": np.ma.MaskedArray(galaxy(), galaxy() > 50)},
        "row": {
            "image": {
                "band": ["des-g", "des-r"],
                "flux": data[:2].astype("f4"),
                "mask": data[:2] < 50,
                "psf_fwhm": [0.0, 1.2],
                "scale": [0.262, 0.262],
            },
            "object_id": "b'7'",
        },
        "aion": SimpleNamespace(flux=data[:2].astype("f4"), bands=["DES-G", "DES-R"]),
    }


def _sample_path(stem):
    from astro_disentangle import samples

    folder = samples.__file__.rpartition("/")[0]
    return f"{folder}/{stem.split('_')[0]}/{stem}.fits"


FORMS = tuple(forms())


def call_transform(model, one, other):
    model.transform([one, other], survey="legacy", donors=[other])


def call_translate(model, one, other):
    options = {"source": "legacy", "like": [other, one], "n_steps": 1}
    model.translate([one, other], survey="legacy", n_samples=2, **options)
    model.translate(one, survey="hsc", source="legacy", n_steps=1)


def call_reconstruct(model, one, other):
    model.reconstruct([one, other], survey="legacy", n_steps=1)


def call_similar(model, one, other):
    model.similar([one, other], [other], k=1, survey="legacy")


def call_predict(model, one, other):
    model = own_heads(model, other)
    model.predict([one, other], survey="legacy")


def call_fit_properties(model, one, other):
    model = own_heads(model, other)
    model.fit_properties([one, other] * 20, {"a": np.arange(40.0)}, survey="legacy")


def own_heads(model, other):
    """A copy of the model, so that the fixture keeps its heads."""
    model = copy.copy(model)
    model.heads_ = {}
    table = {"z": np.arange(40.0)}
    return model.fit_properties([other] * 40, table, survey="legacy")


CALLS = {
    "fit_properties": call_fit_properties,
    "predict": call_predict,
    "similar": call_similar,
    "transform": call_transform,
    "translate": call_translate,
    "reconstruct": call_reconstruct,
}


def test_r14_every_method_that_takes_cutouts_is_looked_at():
    methods = {
        name
        for name, method in inspect.getmembers(Disentangler, inspect.isfunction)
        if not name.startswith("_")
        and {"cutouts", "query", "latents_or_cutouts"}
        & set(inspect.signature(method).parameters)
    }
    assert methods == set(CALLS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", CALLS)
def test_r14_inputs_are_not_modified(model, method, form):
    one, other = forms()[form], cutout(galaxy(seed=3))
    before = fingerprint([one, other])
    CALLS[method](model, one, other)
    assert fingerprint([one, other]) == before


def test_r14_mosaics_are_not_modified():
    mosaic = {"g": cutout(galaxy())["g"], "r": cutout(galaxy(seed=2))["r"]}
    mosaic["r"] = CCDData(mosaic["r"].data, unit="nmgy", wcs=sky_wcs(0.3))
    before = fingerprint([mosaic])
    view = SurveyCutout.from_image(mosaic, [(20.3, 21.0)], survey="legacy")[0]
    view.data[:] = -1
    view.mask[:] = True
    view.meta["SURVEY"] = "hsc"
    assert fingerprint([mosaic]) == before


@pytest.mark.parametrize("method", CALLS)
def test_r14_refused_inputs_are_not_modified(model, method):
    one, other = cutout(unit="m"), cutout(meta={"SURVEY": "hsc"})
    before = fingerprint([one, other])
    with pytest.raises(DisentangleError):
        CALLS[method](model, one, other)
    assert fingerprint([one, other]) == before


def test_r14_pairs_are_not_modified(pairs, tmp_path):
    a, b = list(pairs.cutouts("hsc")), list(pairs.cutouts("legacy"))
    before = fingerprint([a, b])
    made = PairedCutouts.from_nddata(a, b)
    assert fingerprint([a, b]) == before
    tensors = {
        survey: [
            getattr(made.batch(survey), name).clone().numpy()
            for name in ("pixels", "good", "noise", "psf_fwhm", "affine", "flags")
        ]
        for survey in made.surveys
    }
    whole = fingerprint(tensors)
    sizes = (8, 8, 8)
    Disentangler(
        n_steps=1,
        batch_size=4,
        network={
            "physics_widths": sizes,
            "instrument_widths": sizes,
            "decoder_width": 16,
            "condition": 16,
        },
        progress=False,
    ).fit(made, validation=made[:4])
    for survey, parts in tensors.items():
        for number, name in enumerate(
            ("pixels", "good", "noise", "psf_fwhm", "affine", "flags")
        ):
            parts[number] = getattr(made.batch(survey), name).numpy()
    assert fingerprint(tensors) == whole
    made.write(tmp_path)
    assert fingerprint([a, b]) == before


def test_r14_a_cutout_of_ones_own_is_not_modified(tmp_path):
    own = forms()["own"]
    before = fingerprint(own)
    own.write(tmp_path / "own.fits")
    own.aperture_flux(CircularAperture((24.5, 24.5), 4))
    own["r"].data.sum()
    own[:, 5:20, 5:20]
    own[["g", "z"]]
    assert [band for band, _ in own.items()] == list("griz")
    assert fingerprint(own) == before

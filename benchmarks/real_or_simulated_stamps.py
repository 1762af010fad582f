# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Real stamps and simulated ones like them; see `real_or_simulated`.

Both kinds go through the same steps: a peak is found in the smoothed image, the stamp
cut about it, its magnitude measured within 1.5 FWHM, point sources left out by their
half-light radius (the simulator's stars are no more than points, and its share of them
is a matter of Galactic latitude), and a simulated stamp loses the pixels that its real
partner lacks. Stamps of the sky lie side by side.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from astropy.nddata import CCDData, InverseVariance
from scipy import ndimage, optimize
from simulator_fields import moffat

from astro_disentangle import get_survey
from astro_disentangle.keys import numpy_generator
from astro_disentangle.simulation import simulate
from astro_disentangle.simulation.instruments import Conditions, pixel_noise

#: Folder, survey and bands of the images of each comparison. Sources are found in the
#: first band. Not used: hsc_field, from which the companions have been subtracted, and
#: des_spiral and hsc_cosmos_blend, where one galaxy lights every stamp.
SETS = {
    "hsc": (
        ("hsc_field_with_variance", "hsc", "r"),
        ("hsc_lsb_galaxy", "hsc", "rgi"),
        ("hsc_cosmos_group", "hsc", "rgi"),
    ),
    "legacy": (("legacy_decals_galaxy", "legacy", "rgz"),),
    "legacy-north": (("legacy_bass_field", "legacy-north", "g"),),
}
COPIES, MARGIN = 6, 4
#: Most tiles of an image along an axis, and least width of one in stamps.
TILES, WIDTH = 3, 3
BRIGHTEST, EMPTY, DETECTION, BRIGHT = 18.5, 40.0, 5.0, 20.0
#: Least share of the pixels of a stamp, most light in its border (in sky sigma) and
#: least half-light radius (in that of the PSF); radius of the centre in arcsec.
INSIDE, BORDER, EXTENDED, CENTRE = 0.6, 1.0, 1.08, 2.0


@dataclass(frozen=True, eq=False)
class Field:
    """A real image of C bands in nJy, its PSF (C, 4), and its noise in each band."""

    name: str
    survey: object
    bands: str
    pixels: np.ndarray
    good: np.ndarray
    psf: np.ndarray
    psf_from: str
    noise: np.ndarray
    injected: np.ndarray

    @property
    def fwhm(self):
        return self.psf[0, 0] / self.survey.pixel_scale

    @property
    def aperture(self):
        return 1.5 * self.fwhm


@dataclass(frozen=True, eq=False)
class Stamps:
    """N stamps (N, C, n, n), their good pixels, objects (x, y), corners and places."""

    pixels: np.ndarray
    good: np.ndarray
    centre: np.ndarray
    corner: np.ndarray
    place: np.ndarray
    magnitude: np.ndarray

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, rows):
        return Stamps(*(getattr(self, f.name)[rows] for f in fields(self)))


def spread(values):
    """Robust standard deviation."""
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def smooth(pixels, fwhm):
    """Images convolved with a Gaussian of a FWHM in pixels."""
    width = (0,) * (pixels.ndim - 2) + (fwhm / 2.355,) * 2
    return ndimage.gaussian_filter(pixels, width, mode="nearest")


def sky_pixels(smoothed, good, limit):
    """Pixels away from everything that shows in the smoothed image."""
    shape = (1,) * (smoothed.ndim - 2) + (5, 5)
    return good & ~ndimage.binary_dilation(np.abs(smoothed) > limit, np.ones(shape))


def noise_of(plane, good, fwhm):
    """Standard deviations of the sky, of the image and of the smoothed one."""
    smoothed, sky = smooth(plane, fwhm), good
    for _ in range(8):
        level, width = np.median(smoothed[sky]), spread(smoothed[sky])
        sky = sky_pixels(smoothed - level, good, 3 * width)
    return spread(plane[sky]), width


def find_peaks(smoothed, good, limit):
    """x, y and row of the maxima of smoothed images (N, H, W) above a limit."""
    top = (smoothed == ndimage.maximum_filter(smoothed, (1, 5, 5))) & (smoothed > limit)
    top[:, :2] = top[:, -2:] = top[:, :, :2] = top[:, :, -2:] = False
    row, y, x = np.nonzero(top & good)
    middle, offsets = smoothed[row, y, x], []
    for j, i in ((0, 1), (1, 0)):
        low, high = smoothed[row, y - j, x - i], smoothed[row, y + j, x + i]
        curve = np.maximum(2 * middle - low - high, 1e-12)
        offsets.append(np.clip((high - low) / (2 * curve), -0.5, 0.5))
    return x + offsets[0], y + offsets[1], row


def fit_psf(image, fwhm):
    """FWHM (px), Moffat index, e1 and e2 of a star, and its largest residual."""
    scale, middle, size = image.max(), (len(image) - 1) / 2, len(image)
    fit = optimize.least_squares(
        lambda p: ((moffat(p, image.shape) - image) / scale).ravel(),
        [1.5 * fwhm**2 * scale, middle, middle, fwhm, 3.0, 0.0, 0.0, 0.0],
        bounds=(
            [0, 0, 0, 1, 1.2, -0.6, -0.6, -np.inf],
            [np.inf, size, size, 20, 9, 0.6, 0.6, np.inf],
        ),
        x_scale=[fwhm**2 * scale, 1, 1, 1, 1, 0.1, 0.1, scale],
    )
    return *fit.x[3:7], np.abs(fit.fun).max()


def fit_stars(plane, good, fwhm):
    """PSFs (S, 4) of the most compact bright sources."""
    smoothed, half, fits = smooth(plane, fwhm)[None], 10, []
    x, y, _ = find_peaks(smoothed, good, 40 * noise_of(plane, good, fwhm)[1])
    for i, j in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        window = np.s_[max(j - half, 0) : j + half + 1, max(i - half, 0) : i + half + 1]
        whole = plane[window].shape == (2 * half + 1, 2 * half + 1)
        if whole and good[window].all():
            *shape, residual = fit_psf(plane[window], fwhm)
            likely = abs(shape[0] / fwhm - 1) < 0.25 and np.hypot(*shape[2:]) < 0.3
            if residual < 0.08 and likely:
                fits.append(shape)
    fits = np.array(fits).reshape(-1, 4)
    return fits[fits[:, 0] < 1.08 * fits[:, 0].min(initial=np.inf)]


def read_field(folder, name, survey, bands):
    """A real image with its conditions."""
    survey = get_survey(survey)
    images = [CCDData.read(folder / name / f"{band}.fits") for band in bands]
    pixels = np.stack([np.asarray(i.data, float) for i in images]) * survey.nanojansky
    good = np.isfinite(pixels).all(0)
    for image in images:
        if isinstance(image.uncertainty, InverseVariance):
            good &= image.uncertainty.array > 0
        if image.mask is not None:
            good &= ~np.asarray(image.mask, bool)
    pixels[:, ~good] = 0
    psf, noise, source = [], [], "stars"
    for image, plane, band in zip(images, pixels, bands, strict=True):
        usual = survey.psf_fwhm[survey.bands.index(band)] / survey.pixel_scale
        stars = fit_stars(plane, good, usual)
        # The PSF image of a field may be 5 % off its stars.
        if len(stars) > 2 or (len(stars) and image.psf is None):
            shape = np.median(stars, 0)
        elif image.psf is not None:
            shape, source = fit_psf(np.asarray(image.psf, float), usual)[:4], "image"
        else:
            shape, source = (usual, survey.psf_beta, 0.0, 0.0), "survey"
        psf.append([shape[0] * survey.pixel_scale, *shape[1:]])
        noise.append(noise_of(plane, good, shape[0]))
    noise = np.array(noise)
    field = Field(
        name, survey, bands, pixels, good, np.array(psf), source, noise, noise[:, 0]
    )
    # Faint sources widen the sky: what is injected must give what was measured.
    empty = draw(field, np.full(200, EMPTY), 1)[:144]
    mosaic = empty.reshape(12, 12, *empty.shape[1:]).transpose(2, 0, 3, 1, 4)
    mosaic = mosaic.reshape(len(bands), 12 * empty.shape[-2], -1)
    found = [
        noise_of(plane, np.ones(plane.shape, bool), w / survey.pixel_scale)[0]
        for plane, w in zip(mosaic, field.psf[:, 0], strict=True)
    ]
    return replace(field, injected=field.injected * noise[:, 0] / found)


def conditions(field, wider):
    """The field's conditions for the simulator; bands that it lacks have usual ones."""
    survey = field.survey
    columns = [survey.bands.index(band) for band in field.bands]
    fwhm, depth = (torch.tensor([x]) for x in (survey.psf_fwhm, survey.depth))
    beta, zero = torch.full_like(fwhm, survey.psf_beta), torch.zeros_like(fwhm)
    ellipticity = torch.zeros(1, len(survey.bands), 2)
    values = torch.tensor(field.psf, dtype=torch.float32)
    fwhm[0, columns], beta[0, columns] = wider * values[:, 0], values[:, 1]
    ellipticity[0, columns] = values[:, 2:]
    usual = pixel_noise(survey, depth, fwhm)[0, columns]
    ratio = torch.tensor(field.injected, dtype=torch.float32) / usual
    depth[0, columns] -= 2.5 * ratio.log10()
    return Conditions(fwhm, beta, ellipticity, depth, zero, zero == 0)


def draw(field, magnitude, seed, *, white=False, wider=1.0):
    """Simulated images about objects of HSC i magnitudes, with a margin; nJy."""
    size = field.survey.stamp_size + 2 * MARGIN
    survey = replace(field.survey, stamp_size=size, patch_size=4)
    if white:
        survey = replace(survey, noise_correlation=())
    columns = [survey.bands.index(band) for band in field.bands]
    pixels = []
    for step, part in enumerate(np.array_split(magnitude, -(-len(magnitude) // 256))):
        sky = simulate(
            1,
            len(part),
            [survey],
            seed=seed,
            step=step,
            conditions={survey.name: conditions(field, wider)},
            magnitude=torch.tensor(part, dtype=torch.float32),
        )
        batch = sky.batches[survey.name]
        whole = batch.good[:, columns].flatten(1).all(1)
        pixels.append(batch.pixels[whole][:, columns].double().numpy())
    return np.concatenate(pixels)


def cut(field, images, good, x, y, row):
    """Stamps about positions in images (N, C, H, W), beyond whose edges is nothing."""
    size = field.survey.stamp_size
    corner = np.stack([np.ceil(v - size / 2).astype(int) for v in (x, y)], 1)
    images = np.pad(images, [(0, 0), (0, 0), (size, size), (size, size)])
    good = np.pad(good, size)
    windows = [np.s_[..., j : j + size, i : i + size] for i, j in corner + size]
    shape = (len(row), len(field.bands), size, size)
    pixels = np.array([images[k][w] for k, w in zip(row, windows, strict=True)])
    inside = np.array([good[w] for w in windows], bool).reshape(-1, size, size)
    pixels, centre = pixels.reshape(shape), np.stack([x, y], 1) - corner
    flux = growth(pixels[:, 0], centre, [field.aperture])[:, 0]
    magnitude = 31.4 - 2.5 * np.log10(np.maximum(flux, 1e-3))
    return Stamps(pixels, inside, centre, corner, places(field, corner), magnitude)


def places(field, corner):
    """Tile of the image that holds the centre of each stamp, -1 between tiles."""
    size = field.survey.stamp_size
    shape = np.array(field.good.shape[::-1])
    tiles = np.clip((shape + size) // ((WIDTH + 1) * size), 1, TILES)
    period = (shape + size) / tiles
    tile, rest = np.divmod(corner + size / 2, period)
    inside = (rest <= period - size).all(1)
    return np.where(inside, tile @ [1, TILES], -1).astype(int)


def distance(size, centre):
    """Distance in px of the pixels of stamps from their objects, (N, n, n)."""
    y, x = np.indices((size, size))
    return np.hypot(x - centre[:, :1, None], y - centre[:, 1:, None])


def growth(images, centre, radii):
    """Flux within radii in px, (N, R); a pixel on the edge counts in part."""
    r = distance(images.shape[-1], centre)
    weights = (np.clip(a - r + 0.5, 0, 1) for a in radii)
    return np.stack([(images * w).sum((1, 2)) for w in weights], 1)


def light_radius(images, centre, aperture, share):
    """Radius in px that holds a share of the flux within the aperture, (N,)."""
    radii = np.linspace(0, aperture, 31)
    flux = growth(images, centre, radii)
    flux = np.maximum.accumulate(flux, 1) - share * flux[:, -1:]
    k, rows = np.maximum(np.argmax(flux >= 0, 1), 1), np.arange(len(flux))
    low, high = flux[rows, k - 1], flux[rows, k]
    return radii[k] - (radii[1] * high / np.maximum(high - low, 1e-9)).clip(0, radii[1])


def usable(field, stamps, *, empty):
    """Stamps away from large galaxies: about extended sources, or anywhere."""
    edge = np.ones(stamps.good.shape[1:], bool)
    edge[4:-4, 4:-4] = False
    border = np.where(stamps.good & edge, stamps.pixels[:, 0], np.nan)
    border = np.nanmedian(border.reshape(len(stamps), -1), 1) / field.noise[0, 0]
    keep = (border < BORDER) & (stamps.good.mean((1, 2)) >= INSIDE)
    if empty:
        largest = (stamps.pixels[:, 0] * stamps.good).max((1, 2))
        return keep & (largest < 500 * field.noise[0, 0]) & stamps.good.all((1, 2))
    r = distance(stamps.good.shape[1], stamps.centre)
    keep &= (stamps.good | (r > field.aperture + 1)).all((1, 2))
    star = moffat([1, 15, 15, field.fwhm, *field.psf[0, 1:], 0], (31, 31))[None]
    point = light_radius(star, np.full((1, 2), 15.0), field.aperture, 0.5)
    radius = light_radius(stamps.pixels[:, 0], stamps.centre, field.aperture, 0.5)
    # Sizes say nothing of faint sources, few of which are stars.
    noise = field.noise[0, 0] * np.sqrt(np.pi) * field.aperture
    bright = stamps.magnitude < 31.4 - 2.5 * np.log10(BRIGHT * noise)
    star = bright & (radius < EXTENDED * point)
    return keep & (stamps.magnitude > BRIGHTEST) & ~star


def real_stamps(field, *, empty):
    """Stamps of a real image, about its sources or side by side."""
    smoothed, good = smooth(field.pixels[:1], field.fwhm), field.good
    if empty:
        size = field.survey.stamp_size
        axes = (np.arange(size / 2, n - size / 2 + 1, size) for n in good.shape)
        y, x = (v.ravel() for v in np.meshgrid(*axes, indexing="ij"))
    else:
        x, y, _ = find_peaks(smoothed, good, DETECTION * field.noise[0, 1])
    stamps = cut(field, field.pixels[None], good, x, y, np.zeros(len(x), int))
    return stamps[usable(field, stamps, empty=empty) & (stamps.place >= 0)]


def simulated_stamps(field, real, seed, *, empty, **flaw):
    """Simulated stamps, `COPIES` of each real one's magnitude in turn."""
    n = len(real) * (10 if empty else 40)
    random = numpy_generator(seed, "magnitude", field.name)
    # HSC i is brighter than the aperture of a blue band; counts rise by 0.3 dex.
    magnitude = real.magnitude[np.arange(n) % len(real)] + 0.3
    magnitude += np.log10(random.uniform(0.08, 1, n)) / 0.3
    images = draw(field, np.full(n, EMPTY) if empty else magnitude, seed, **flaw)
    size = images.shape[-1]
    good = np.ones((size, size), bool)
    row, x = np.arange(len(images)), np.full(len(images), size / 2)
    y = x
    if not empty:
        smoothed = smooth(images[:, 0], field.fwhm)
        x, y, row = find_peaks(smoothed, good, DETECTION * field.noise[0, 1])
        near = np.abs(np.stack([x, y]) - (size - 1) / 2).max(0) < 2
        x, y, row = x[near], y[near], row[near]
    stamps = cut(field, images, good, x, y, row)
    stamps = stamps[usable(field, stamps, empty=empty)]
    chosen = np.arange(COPIES * len(real))
    if not empty:
        away = np.abs(stamps.magnitude - real.magnitude[:, None])
        chosen = np.empty((len(real), COPIES), int)
        for k in random.permutation(len(real)):
            chosen[k] = np.argsort(away[k])[:COPIES]
            away[:, chosen[k]] = np.inf
        chosen = chosen.ravel()
    stamps = stamps[chosen]
    good, place = (np.repeat(v, COPIES, 0) for v in (real.good, real.place))
    return replace(stamps, good=good, place=place)


def features(field, stamps, *, empty):
    """What can be said of each stamp by hand, in the first band: a dict of (N,)."""
    out = sky_features(field, stamps, empty=empty)
    return out if empty else out | object_features(field, stamps)


def sky_features(field, stamps, *, empty):
    """Features of what is outside the object."""
    scale, sigma = field.survey.pixel_scale, field.noise[0, 0]
    image = stamps.pixels[:, 0] * stamps.good / sigma
    size, n = image.shape[-1], len(image)
    smoothed = smooth(image, field.fwhm)
    limit = field.noise[0, 1] / sigma
    r = distance(size, stamps.centre) * scale
    outside = stamps.good & ((r > CENTRE) | empty)
    sky = sky_pixels(smoothed, outside, 3 * limit)
    v = np.where(sky, image, np.nan)
    level = np.nanmedian(v, (1, 2), keepdims=True)
    v = v - level
    var = np.nanmean(v**2, (1, 2))
    out = {"sky level": level[:, 0, 0], "sky sigma": np.sqrt(var)}
    out["sky skewness"] = np.nanmean(v**3, (1, 2)) / var**1.5
    out["sky kurtosis"] = np.nanmean(v**4, (1, 2)) / var**2
    for lag in (1, 2, 3):
        pairs = v[:, lag:] * v[:, :-lag], v[:, :, lag:] * v[:, :, :-lag]
        pairs = np.concatenate([pair.reshape(n, -1) for pair in pairs], 1)
        out[f"correlation, lag {lag}"] = np.nanmean(pairs, 1) / var
    blocks = v.reshape(n, size // 8, 8, size // 8, 8)
    filled = np.isfinite(blocks).mean((2, 4)) > 0.5
    blocks = np.where(filled, np.nanmean(blocks, (2, 4)), np.nan)
    out["rms of 8 px blocks"] = np.nanstd(blocks, (1, 2))
    for bound in (2, 3):
        hit = (image > bound) & outside
        out[f"share above {bound} sigma"] = hit.sum((1, 2)) / outside.sum((1, 2))
    out["share below -3 sigma"] = (v < -3).sum((1, 2)) / sky.sum((1, 2)).clip(1)
    x, y, row = find_peaks(smoothed, stamps.good, DETECTION * limit)
    away = np.hypot(x - stamps.centre[row, 0], y - stamps.centre[row, 1])
    others = (away > field.aperture) | empty
    out["neighbours"] = np.bincount(row[others], minlength=n)
    bright = np.where(outside, smoothed, 0).max((1, 2))
    out["brightest pixel outside"] = np.log10(bright.clip(0.1))
    return out


def object_features(field, stamps):
    """Features of the object and its surroundings, colours among them."""
    image, centre, aperture = stamps.pixels[:, 0], stamps.centre, field.aperture
    image = image * stamps.good / field.noise[0, 0]
    scale, size, n = field.survey.pixel_scale, image.shape[-1], len(image)
    r = distance(size, centre) * scale
    total = growth(image, centre, [aperture])[:, 0]
    r20, r50, r80 = (light_radius(image, centre, aperture, s) for s in (0.2, 0.5, 0.8))
    out = {"concentration r80 / r20": r80 / np.maximum(r20, 0.1)}
    out["half-light radius"] = r50 * scale
    one, two = growth(image, centre, [1 / scale, 2 / scale]).T
    out['flux in 1" / 2"'] = one / np.maximum(two, 1)
    wide = growth(image, centre, [1.5 * aperture])[:, 0]
    out["flux beyond the aperture"] = wide / total
    inside = r < aperture * scale
    turned = image[:, ::-1, ::-1]
    out["asymmetry"] = (np.abs(image - turned) * inside).sum((1, 2)) / total
    lumps = np.maximum(image - smooth(image, field.fwhm), 0) * inside
    out["clumpiness"] = lumps.sum((1, 2)) / total
    core = inside & (r < 1)
    out["peak / flux"] = np.where(core, image, 0).max((1, 2)) / total
    weight = np.exp(-0.5 * (r / scale / (0.6 * field.fwhm)) ** 2) * image
    dy, dx = np.indices((size, size))
    dx, dy = dx - centre[:, :1, None], dy - centre[:, 1:, None]
    xx, yy, xy = ((weight * q).sum((1, 2)) for q in (dx**2, dy**2, dx * dy))
    out["ellipticity"] = np.hypot(xx - yy, 2 * xy) / np.abs(xx + yy)
    out |= {f"{a} - {b}": np.full(n, np.nan) for a, b in ("gr", "ri", "rz")}
    flux = [growth(p, centre, [aperture])[:, 0] for p in stamps.pixels.swapaxes(0, 1)]
    flux = dict(zip(field.bands, flux, strict=True))
    for a, b in ("gr", "ri", "rz"):
        if a in flux and b in flux:
            ratio = flux[a].clip(1e-3) / flux[b].clip(1e-3)
            out[f"{a} - {b}"] = -2.5 * np.log10(ratio)
    return out

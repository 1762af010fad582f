# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Real images and their simulated counterparts as stamps; see `simulator_images`."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from astropy.nddata import CCDData
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.segmentation import (
    SourceCatalog,
    deblend_sources,
    detect_sources,
    make_2dgaussian_kernel,
)
from scipy.ndimage import binary_dilation, convolve
from scipy.optimize import least_squares

from astro_disentangle.keys import torch_generator
from astro_disentangle.simulation import simulate
from astro_disentangle.simulation.instruments import draw_conditions, pixel_noise
from astro_disentangle.surveys import get_survey

SEED = 0
GAP = 8
#: Folder, band, survey, FWHM of the stars (arcsec; the survey's where there is none).
#: From hsc_field the companions have been subtracted: it serves for the noise only,
#: and what is left of them adds to the tails. The halo of legacy_decals_galaxy leaves
#: sky enough for the noise but no galaxies, that of des_spiral not even that.
FIELDS = {
    "HSC r": ("hsc_field_with_variance", "r", "hsc", 0.83),
    "HSC i": ("hsc_field", "i", "hsc", 0.61),
    "DECaLS r": ("legacy_decals_galaxy", "r", "legacy", 1.09),
    "BASS g": ("legacy_bass_field", "g", "legacy-north", 1.75),
}


@dataclass(frozen=True, eq=False)
class Stamps:
    """Stamps (n, N, N) in nJy with good pixels, of one band of a survey."""

    pixels: np.ndarray
    good: np.ndarray
    survey: object
    band: str
    kernel: np.ndarray
    sigma: float
    smooth: float

    def mosaic(self):
        """All stamps side by side, (Y, X), pixels and good, and their step."""
        n, size, _ = self.pixels.shape
        side, step = int(np.ceil(np.sqrt(n))), size + GAP
        shape = (side * step, side * step)
        image, good = np.zeros(shape), np.zeros(shape, bool)
        for row in range(n):
            y, x = (step * k for k in divmod(row, side))
            image[y : y + size, x : x + size] = self.pixels[row]
            good[y : y + size, x : x + size] = self.good[row]
        return image, good, side, step

    def detect(self, threshold):
        """Segments of the mosaic; the threshold in units of the smoothed noise."""
        image, good, side, step = self.mosaic()
        smooth = convolve(image * good, self.kernel)
        level = threshold * self.smooth
        found = detect_sources(smooth, level, 5, mask=~good)
        return image, smooth, found, side, step

    def sources(self, threshold=5):
        """Row, x, y (px in the stamp) and flux (nJy) of deblended sources, (S, 4)."""
        image, smooth, found, side, step = self.detect(threshold)
        found = deblend_sources(
            smooth, found, 5, n_levels=16, contrast=0.005, progress_bar=False
        )
        catalogue = SourceCatalog(image, found, convolved_data=smooth)
        x, y = catalogue.centroid.T
        row = (y // step).astype(int) * side + (x // step).astype(int)
        return np.stack([row, x % step, y % step, catalogue.segment_flux], 1)

    def sky(self, threshold=2.5, grow=3):
        """Pixels away from sources in units of the noise, and which they are."""
        _, _, found, side, step = self.detect(threshold)
        mask = binary_dilation(found.data > 0, iterations=grow)
        n, size, _ = self.pixels.shape
        rows = [divmod(row, side) for row in range(n)]
        hit = [mask[y * step :, x * step :][:size, :size] for y, x in rows]
        good = self.good & ~np.array(hit)
        level = np.median(self.pixels[good])
        spread = 1.4826 * np.median(np.abs(self.pixels[good] - level))
        return np.where(good, (self.pixels - level) / spread, 0.0), good

    def aperture(self, radius):
        """Flux within a radius (arcsec) of the middle of each stamp, (n,)."""
        middle = (self.pixels.shape[1] - 1) / 2
        circle = CircularAperture((middle, middle), radius / self.survey.pixel_scale)
        table = [aperture_photometry(p, circle)["aperture_sum"][0] for p in self.pixels]
        return np.array(table)

    def __getitem__(self, rows):
        return replace(self, pixels=self.pixels[rows], good=self.good[rows])


def clipped(values):
    """Median and noise of the sky, sources clipped away."""
    level, spread = np.median(values), np.inf
    for _ in range(12):
        near = values[np.abs(values - level) < 3 * spread]
        level = np.median(near)
        spread = 1.4826 * np.median(np.abs(near - level))
    return level, spread


def moffat(parameters, shape, fine=5):
    """Elliptical Moffat profile averaged over pixels, (ny, nx)."""
    flux, x0, y0, width, beta, e1, e2, level = parameters
    ny, nx = shape
    dx, dy = ((np.arange(n * fine) + 0.5) / fine - 0.5 for n in (nx, ny))
    dx, dy = dx - x0, (dy - y0)[:, None]
    square = (1 - e1) * dx**2 - 2 * e2 * dx * dy + (1 + e1) * dy**2
    square = square / np.sqrt(max(1 - e1**2 - e2**2, 1e-3))
    alpha = width / (2 * np.sqrt(2 ** (1 / beta) - 1))
    profile = (beta - 1) / (np.pi * alpha**2) * (1 + square / alpha**2) ** -beta
    return flux * profile.reshape(ny, fine, nx, fine).mean((1, 3)) + level


def fit_moffat(image, error, width):
    """FWHM (px), index and ellipticity of a star, and the rms of its residuals."""
    ny, nx = image.shape
    start = [image.sum(), (nx - 1) / 2, (ny - 1) / 2, width, 2.5, 0, 0, 0]
    start[0] = max(start[0], 10 * image.max())
    low = [0, 0, 0, 1, 1.2, -0.8, -0.8, -np.inf]
    high = [np.inf, nx, ny, 15, 8, 0.8, 0.8, np.inf]
    fit = least_squares(
        lambda p: ((moffat(p, image.shape) - image) / error).ravel(),
        start,
        bounds=(low, high),
        x_scale=np.maximum(np.abs(start), 0.05),
    )
    e = np.hypot(fit.x[5], fit.x[6])
    return fit.x[3], fit.x[4], e, np.sqrt(np.mean(fit.fun**2))


class Field:
    """A real image: sources, stars, and what is far from bright objects."""

    def __init__(self, folder, name):
        place, self.band, survey, self.fwhm = FIELDS[name]
        self.survey = get_survey(survey)
        data = CCDData.read(folder / place / f"{self.band}.fits")
        self.good = np.isfinite(data.data)
        if data.mask is not None:
            self.good &= np.asarray(data.mask) == 0
        image = np.where(self.good, data.data, 0).astype(float)
        scale = self.survey.pixel_scale
        image *= self.survey.nanojansky
        width = self.fwhm / scale
        self.kernel = make_2dgaussian_kernel(width, size=2 * int(1.5 * width) + 1).array
        level, _ = clipped(image[self.good])
        # Twice: the second time without the surroundings of bright objects.
        y, x = np.indices(image.shape)
        self.calm = self.good
        for _ in range(2):
            level, self.sigma = clipped(image[self.calm])
            self.image = (image - level) * self.good
            smooth = convolve(self.image, self.kernel)
            self.smooth = clipped(smooth[self.calm])[1]
            found = detect_sources(smooth, 5 * self.smooth, 5, mask=~self.good)
            found = deblend_sources(
                smooth, found, 5, n_levels=16, contrast=0.005, progress_bar=False
            )
            catalogue = SourceCatalog(self.image, found, convolved_data=smooth)
            self.xy = catalogue.centroid
            self.magnitude = 31.4 - 2.5 * np.log10(
                np.maximum(catalogue.segment_flux, 1)
            )
            self.calm = self.good.copy()
            for (xs, ys), m in zip(self.xy, self.magnitude, strict=True):
                reach = 8 * 10 ** (0.12 * (19 - m)) / scale if m < 19 else 0
                self.calm &= np.hypot(x - xs, y - ys) >= reach

    def cut(self, x, y, good=None, size=None):
        """A stamp about a pixel and its good pixels, or `None` at the edge."""
        size = size or self.survey.stamp_size
        left, low = (round(float(c) - (size - 1) / 2) for c in (x, y))
        ny, nx = self.image.shape
        if left < 0 or low < 0 or left + size > nx or low + size > ny:
            return None
        part = np.s_[low : low + size, left : left + size]
        return self.image[part], (self.good if good is None else good)[part]

    def stamps(self, cuts):
        """The stamps among what `cut` gave."""
        pixels, good = (np.array(part) for part in zip(*cuts, strict=True))
        return Stamps(
            pixels, good, self.survey, self.band, self.kernel, self.sigma, self.smooth
        )

    def tiles(self):
        """Stamps that cover the field, most of each far from bright objects."""
        size = self.survey.stamp_size
        ny, nx = self.image.shape
        cuts = [
            self.cut(x + (size - 1) / 2, y + (size - 1) / 2, self.calm)
            for y in range(0, ny - size + 1, size)
            for x in range(0, nx - size + 1, size)
        ]
        return self.stamps([cut for cut in cuts if cut[1].mean() > 0.7])

    def stars(self):
        """Sources that are as narrow as the PSF: rows, and their Moffat fits."""
        size = int(5 / self.survey.pixel_scale) | 1
        rows, fits = [], []
        for row in np.flatnonzero((self.magnitude > 15) & (self.magnitude < 22.5)):
            cut = self.cut(*self.xy[row], size=size)
            if cut is None or not cut[1].all():
                continue
            error = np.hypot(self.sigma, 0.02 * cut[0])
            fit = fit_moffat(cut[0], error, self.fwhm / self.survey.pixel_scale)
            width = fit[0] * self.survey.pixel_scale
            if abs(width / self.fwhm - 1) < 0.08 and fit[2] < 0.3:
                rows.append(row)
                fits.append((width, *fit[1:3]))
        return rows, np.array(fits).reshape(-1, 3)

    def galaxies(self, stars, brightest=19.5, faintest=24.5):
        """Stamps about the sources that are not stars."""
        cuts = []
        for row, m in enumerate(self.magnitude):
            if row in stars or not brightest < m < faintest:
                continue
            x, y = self.xy[row]
            cut = self.cut(x, y)
            if cut is None or cut[1].mean() < 0.95:
                continue
            if self.calm[round(float(y)), round(float(x))]:
                cuts.append(cut)
        return self.stamps(cuts)

    def simulated(self, n_groups, step):
        """Stamps of the simulator with this field's seeing and noise, and truth."""
        survey, index = self.survey, self.survey.bands.index(self.band)
        generator = torch_generator(SEED, "conditions", self.band, survey.name)
        given = draw_conditions(survey, n_groups, generator)
        given.psf_fwhm[:, index] = self.fwhm
        sigma = pixel_noise(survey, given.depth, given.psf_fwhm)[:, index]
        given.depth[:, index] += 2.5 * torch.log10(sigma / self.sigma)
        given.present[:] = True
        sky = simulate(
            n_groups, 8, [survey], seed=SEED, step=step, conditions={survey.name: given}
        )
        batch = sky.batches[survey.name]
        pixels, good = (
            getattr(batch, name)[:, index].numpy() for name in ("pixels", "good")
        )
        whole = good.all((1, 2))
        out = self.stamps(zip(pixels[whole].astype(float), good[whole], strict=True))
        return out, {name: x.numpy()[whole] for name, x in sky.truth.items()}

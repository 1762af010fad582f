# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut-outs that the reliability tests start from, and what is asked of rows."""

import contextlib
import hashlib
import resource
import signal
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.nddata import NDData, StdDevUncertainty
from astropy.wcs import WCS

from astro_disentangle import FLAGS

SHAPE = (50, 50)
#: The model's window in an image of `SHAPE` of the Legacy Survey.
WINDOW = (slice(9, 41), slice(9, 41))
NOISE = 0.5


def sky_wcs(scale=0.262, shape=SHAPE):
    """A gnomonic WCS, north up and east to the left; ``scale`` in arcsec."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    wcs.wcs.set()
    return wcs


def galaxy(shape=SHAPE, seed=0, flux=60.0):
    """A round galaxy in multiples of 1/8 below 128, exact in 16 bits as well."""
    y, x = np.indices(shape)
    square = (x - (shape[1] - 1) / 2) ** 2 + (y - (shape[0] - 1) / 2) ** 2
    noise = np.random.default_rng(seed).normal(0, NOISE, shape)
    image = np.round((flux * np.exp(-square / 8) + noise) * 8) / 8
    return image.astype(np.float32)


def psf_image(sigma=1.8, size=25):
    """A Gaussian PSF of sum 1."""
    axis = np.arange(size) - (size - 1) / 2
    psf = np.exp(-(axis**2 + axis[:, None] ** 2) / 2 / sigma**2)
    return psf / psf.sum()


def cutout(image=None, bands="griz", *, unit="nmgy", noise=NOISE, **options):
    """A cut-out of the Legacy Survey with all that a good one has."""
    image = galaxy() if image is None else image
    shape = np.shape(image)
    options.setdefault("wcs", sky_wcs(shape=shape[-2:]) if len(shape) == 2 else None)
    options.setdefault("psf", psf_image())
    if "uncertainty" not in options:
        options["uncertainty"] = StdDevUncertainty(np.full(shape, noise, np.float32))
    return {band: NDData(image, unit=unit, **options) for band in bands}


def latents(table):
    """All numbers of the rows, (N, P + I)."""
    return np.concatenate([table["physics"], table["instrument"]], 1)


def check_rows(table, note=""):
    """Each row is finite or flagged as unusable and NaN, never neither."""
    numbers = latents(table)
    unusable = (np.asarray(table["flags"]) & FLAGS.UNUSABLE) != 0
    assert np.array_equal(np.isfinite(numbers).all(1), ~unusable), note
    assert np.isnan(numbers[unusable]).all(), note


def spread_of(table):
    """Standard deviation of the latents of a table; the measure of differences."""
    return float(np.nanstd(latents(table)))


def peak_memory():
    """Most memory that the process has ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def within(seconds):
    """Fail if the body takes longer, also where it waits for a file for ever."""

    def late(*_):
        # No handler of Exception catches it.
        pytest.fail(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fingerprint(value):
    """Digest of all that an input holds, down to types and byte order."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value):
    yield type(value).__name__
    if isinstance(value, np.ma.MaskedArray):
        yield from _parts([value.data, np.ma.getmaskarray(value)])
    elif isinstance(value, np.ndarray):
        yield value.dtype.str, value.shape, value.strides, value.flags.writeable
        yield value.tobytes()
    elif isinstance(value, (WCS, Header)):
        yield from _header_parts(value)
    elif isinstance(value, NDData):
        yield from _parts({name: getattr(value, name, None) for name in _ATTRIBUTES})
    elif isinstance(value, SimpleNamespace):
        yield from _parts(vars(value))
    elif hasattr(value, "uncertainty_type"):
        yield value.uncertainty_type, str(value.unit)
        yield from _parts(value.array)
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.items() if isinstance(value, Mapping) else value:
            yield from _parts(item)
    else:
        yield value


_ATTRIBUTES = ("data", "mask", "unit", "uncertainty", "wcs", "psf", "meta")
_ATTRIBUTES += ("survey", "bands", "flags", "samples")


def _header_parts(value):
    if isinstance(value, Header):
        yield value.tostring()
        return
    # The text of the header leaves out what is at its default, and sizes.
    yield value.to_header_string(relax=True), value.pixel_shape, value.naxis
    yield value.wcs.cdelt.tobytes(), value.wcs.crpix.tobytes()

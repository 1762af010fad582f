# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From a mosaic of one survey to that of another, tile by tile."""

from functools import partial

import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from astro_disentangle.data.match import survey_of
from astro_disentangle.data.mosaic import MosaicCutouts
from astro_disentangle.data.units import lookup
from astro_disentangle.data.unpack import unpack
from astro_disentangle.data.wcs import directions
from astro_disentangle.data.write import to_cutout
from astro_disentangle.mosaics.canvas import Canvas
from astro_disentangle.mosaics.grid import grid_of
from astro_disentangle.mosaics.noise import NoisePlane
from astro_disentangle.mosaics.sources import find_sources
from astro_disentangle.mosaics.tiles import lay_tiles
from astro_disentangle.quality import FLAGS, CutoutError
from astro_disentangle.translation import paint

__all__ = ["translate_mosaic"]

#: Why a tile is not painted, by flag.
_REFUSED = {
    FLAGS.UNUSABLE: "too few good pixels",
    FLAGS.LARGE: "larger than the field of the model",
}
#: Flags of a tile that say something of all of the mosaic.
_OF_ALL = (
    FLAGS.MISSING_BANDS
    | FLAGS.NO_UNCERTAINTY
    | FLAGS.NO_PSF
    | FLAGS.PIXEL_SCALE
    | FLAGS.ASSUMED_UNIT
)


def whole_mosaic(images, survey=None):
    """
    All bands of a mosaic on the pixels of the finest one.

    Parameters
    ----------
    images : mapping of str to `~astropy.nddata.CCDData`, or cube
        The mosaic, one image for each band.
    survey : str or `~astro_disentangle.Survey`, optional
        The survey; ``meta["SURVEY"]`` by default.

    Returns
    -------
    image : `~astro_disentangle.SurveyCutout`
        As large as the largest band; masked where there is nothing.
    """
    planes = unpack(images, survey)
    survey_of(planes, survey)
    side = max(max(plane.data.shape) for plane in planes)
    first = planes[0]
    if first.wcs is None:
        raise CutoutError(
            "a mosaic needs a WCS to be translated; set the 'wcs' of its images."
        )
    ny, nx = first.data.shape
    ra, dec = directions(first.wcs, (nx - 1) / 2, (ny - 1) / 2)[0]
    middle = SkyCoord(ra, dec, unit="deg")
    name = str(lookup(first.meta, "OBJECT_ID", "OBJECT") or "mosaic")
    return MosaicCutouts(images, [middle], survey=survey, size=side, object_id=[name])[
        0
    ]


def translate_mosaic(
    network,
    image,
    conditions,
    read_tiles,
    *,
    bands,
    wcs,
    n_samples,
    n_steps,
    seed,
    dtype,
    residual,
    paint_large,
    meta,
):
    """
    The mosaic of a survey under given conditions.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    image : `~astro_disentangle.SurveyCutout`
        From `whole_mosaic`.
    conditions : `~astro_disentangle.model.bank.Conditions`
        The survey to paint, of C bands, and its conditions.
    read_tiles : callable
        Cut-outs to batches of `~astro_disentangle.data.read.Cutouts`, in their order.
    bands : sequence of str
        Bands of the result.
    wcs : WCS or None
        As for `~astro_disentangle.mosaics.grid.grid_of`.
    n_samples, n_steps, seed, dtype, residual
        As for `~astro_disentangle.translation.paint`.
    paint_large : bool
        Paint also what is larger than the field.
    meta : dict
        Provenance.

    Returns
    -------
    view : `~astro_disentangle.SurveyCutout`
        Masked where the mosaic shows nothing, and where tiles are refused.
    sources : `~astropy.table.QTable`
        What was found, and what became of it.
    """
    target = conditions.survey
    grid = grid_of(image, target, wcs)
    found = find_sources(image)
    seen = grid.seen(image)
    size = target.stamp_size
    tiles = lay_tiles(*_on_grid(found, image, grid), seen, size)
    sky = grid.to_sky(tiles.place)
    places = SkyCoord(*sky.T, unit="deg")
    plane = NoisePlane(seed, target.name, len(target.bands))
    origin = np.array(grid.origin)
    index = [target.bands.index(band) for band in bands]
    canvas = Canvas((n_samples, len(index), *grid.shape))
    reasons = {f: r for f, r in _REFUSED.items() if f != FLAGS.LARGE or not paint_large}
    flags, start = [], 0
    for read in read_tiles(MosaicCutouts(image, places, survey=image.survey)):
        rows = np.arange(start, start + len(read))
        start += len(read)
        flags += read.batch.flags.tolist()
        usable = ((read.batch.flags & sum(reasons)) == 0).numpy()
        for row in rows[~usable]:
            if flags[row] & FLAGS.LARGE:
                canvas.refuse(tiles.weight(row), tiles.corner[row])
        if not usable.any():
            continue
        samples = paint(
            network,
            read.batch[torch.from_numpy(usable.nonzero()[0])],
            conditions,
            n_samples=n_samples,
            n_steps=n_steps,
            noise=partial(_noise_of, plane, tiles.corner[rows[usable]] - origin, size),
            offset=torch.from_numpy(tiles.offset[rows[usable]]).float(),
            dtype=dtype,
            residual=residual,
        )
        samples = samples[:, :, index].numpy()
        for row, painted in zip(rows[usable], samples, strict=True):
            canvas.add(painted, tiles.weight(row), tiles.corner[row])
    flags = np.array(flags, dtype=np.int64)
    pixels = canvas.pixels
    pixels[..., ~seen] = np.nan
    noise = conditions.noise[index].numpy()
    spread = noise if n_samples == 1 else pixels.std(0, ddof=1)
    view = to_cutout(
        pixels.mean(0),
        target,
        bands=bands,
        wcs=grid.wcs,
        noise=spread,
        psf_fwhm=conditions.psf_fwhm[index].numpy(),
        flags=int(np.bitwise_or.reduce(flags & _OF_ALL, initial=0)),
        samples=pixels if n_samples > 1 else None,
        meta=meta | {"OBJECT": image.meta["OBJECT_ID"], "NTILES": len(tiles)},
    )
    count = len(found)
    return view, _table(tiles.place[:count], sky[:count], flags[:count], reasons)


def _noise_of(plane, corners, size, row, sample):
    """The noise of a plane under a tile."""
    return plane.window(sample, tuple(corners[row].tolist()), size)


def _on_grid(sources, image, grid):
    """Places, moments and fluxes of sources on the pixels of a grid."""
    from astro_disentangle.data.wcs import sky_of

    sky = np.stack(sky_of(image.wcs, *sources.place.T), 1)
    place = grid.from_sky(sky).reshape(-1, 2)
    ny, nx = image.shape[1:]
    _, here = directions(image.wcs, (nx - 1) / 2, (ny - 1) / 2)
    _, there = directions(grid.wcs, (grid.shape[1] - 1) / 2, (grid.shape[0] - 1) / 2)
    turn = there @ np.linalg.inv(here)
    covariance = turn @ sources.covariance @ turn.T
    # The noise of a pixel goes with its side.
    return place, covariance, sources.flux * np.sqrt(abs(np.linalg.det(turn)))


def _table(place, sky, flags, reasons):
    """What became of the sources of a mosaic."""
    table = QTable()
    table["coord"] = SkyCoord(*sky.T, unit="deg")
    table["x"], table["y"] = place.T
    table["flags"] = flags
    table["reason"] = [
        next((reason for flag, reason in reasons.items() if row & flag), "")
        for row in flags
    ]
    table["painted"] = table["reason"] == ""
    return table[["coord", "x", "y", "flags", "painted", "reason"]]

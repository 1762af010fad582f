# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Cut the packaged samples out of the images they come from.

Run once by a developer::

    python -m astro_disentangle.samples.build_samples --data DIR

``DIR`` has one folder per image with one FITS file per band, as
`~astropy.nddata.CCDData` writes them. Where a cut-out reaches beyond its image
the pixels are NaN and masked, so that the galaxy stays in the middle.
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData, Cutout2D

__all__ = ["build_sample", "main"]

#: Name, folder of the image, bands, position of the galaxy (x, y; 0-based pixels).
SAMPLES = (
    ("hsc_blend", "hsc_cosmos_blend", "grizy", (30.7, 36.0)),
    ("hsc_compact", "hsc_lsb_galaxy", "grizy", (79.4, 100.4)),
    ("hsc_double", "hsc_lsb_galaxy", "grizy", (133.9, 69.9)),
    ("hsc_inclined", "hsc_lsb_galaxy", "grizy", (171.1, 79.7)),
    ("hsc_red", "hsc_cosmos_group", "grizy", (33.1, 39.6)),
    ("legacy_diffuse", "legacy_decals_galaxy", "grz", (67.5, 60.6)),
    ("legacy_faint", "legacy_decals_galaxy", "grz", (204.9, 31.8)),
    ("legacy_inclined", "legacy_decals_galaxy", "grz", (17.9, 210.7)),
    ("legacy_round", "legacy_decals_galaxy", "grz", (177.2, 14.0)),
)
#: Pixels on a side, by survey: 10.8 and 11.5 arcsec.
SIZE = {"hsc": 64, "legacy": 44}
_KEYS = ("SURVEY", "BAND", "PIXSCALE", "MAGZERO", "BUNIT")


def build_sample(image, name, position):
    """
    Cut one galaxy out of one image.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData`
        The image; ``meta`` says survey, band, pixel scale, zero point and source.
    name : str
        Name of the sample.
    position : tuple of float
        Place of the galaxy, x and y in 0-based pixels.

    Returns
    -------
    cutout : `~astropy.nddata.CCDData`
        Float32 cut-out with the WCS, mask, uncertainty and PSF of the image, if
        it has them.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astro_disentangle.samples.build_samples import build_sample
    >>> meta = {"SURVEY": "legacy", "BAND": "r", "PIXSCALE": 0.262, "MAGZERO": 22.5}
    >>> meta |= {"BUNIT": "nmgy", "SOURCE": "somebody/something@0 MIT"}
    >>> image = CCDData(np.ones((60, 60)), unit="nmgy", meta=meta)
    >>> cutout = build_sample(image, "example", (10.0, 30.0))
    >>> cutout.shape, int(cutout.mask.sum())
    ((44, 44), 528)
    """
    size = SIZE[image.meta["SURVEY"]]
    options = {"size": size, "mode": "partial"}
    cut = Cutout2D(
        image.data.astype(np.float32),
        position,
        wcs=image.wcs,
        fill_value=np.nan,
        copy=True,
        **options,
    )
    mask = np.isnan(cut.data)
    if image.mask is not None:
        mask |= Cutout2D(image.mask, position, fill_value=True, **options).data
    uncertainty = None
    if image.uncertainty is not None:
        values = image.uncertainty.array.astype(np.float32)
        values = Cutout2D(values, position, fill_value=np.nan, **options).data
        uncertainty = type(image.uncertainty)(values)
    source, _, rest = image.meta["SOURCE"].partition(" ")
    meta = {key: image.meta[key] for key in _KEYS}
    meta |= {"OBJECT": name, "SOURCE": source, "LICENSE": rest.split(" ")[0]}
    return CCDData(
        cut.data,
        unit=image.unit,
        wcs=cut.wcs,
        mask=mask if mask.any() else None,
        uncertainty=uncertainty,
        psf=None if image.psf is None else image.psf.astype(np.float32),
        meta=meta,
    )


def main(arguments=None):
    """
    Write all samples into the package.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process by default.

    Examples
    --------
    >>> from astro_disentangle.samples.build_samples import main
    >>> main(["--data", "images"])  # doctest: +SKIP
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    for name, folder, bands, position in SAMPLES:
        for band in bands:
            image = CCDData.read(options.data / folder / f"{band}.fits")
            cutout = build_sample(image, name, position)
            path = options.output / cutout.meta["SURVEY"] / f"{name}_{band}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            cutout.write(path, overwrite=True)


if __name__ == "__main__":
    main()

# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Simulated mosaics: a part of the sky, larger than a cut-out, in several surveys.

Sources, conditions and noise are those of `astro_disentangle.simulation.sky`; what
is left out are the galaxies too faint to be told apart, halos of stars outside, bad
pixels and what remains of the background.
"""

import dataclasses
import math
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from astro_disentangle.data.write import to_cutout
from astro_disentangle.keys import seed_of, torch_generator
from astro_disentangle.simulation.instruments import (
    draw_conditions,
    extinction,
    pixel_noise,
)
from astro_disentangle.simulation.noise import correlated_noise, photon_factor
from astro_disentangle.simulation.render import (
    component_fluxes,
    psf_transform,
    render,
)
from astro_disentangle.simulation.scene import draw_field
from astro_disentangle.simulation.sky import MEAN_EBV
from astro_disentangle.surveys import get_survey

__all__ = ["Field", "simulate_field"]


@dataclass(frozen=True, eq=False)
class Field:
    """
    A part of the sky as several surveys would observe it.

    Parameters
    ----------
    mosaics : dict of str to `~astro_disentangle.SurveyCutout`
        Images by name of the survey, on its own pixels, north up, about one place.
    noiseless : dict of str to `~numpy.ndarray`
        Shape (C, N, N), the same without noise, in the same unit.
    conditions : dict of str to ``Conditions``
        Of one group, as ``astro_disentangle.simulation.instruments`` has them.
    sources : `~astropy.table.QTable`
        ``coord``, ``magnitude`` (HSC i, ABmag), ``r_half`` (arcsec), ``redshift`` and
        ``is_star`` of what there is.
    """

    mosaics: dict
    noiseless: dict
    conditions: dict
    sources: QTable


def simulate_field(
    side=60 * u.arcsec,
    *,
    surveys=("hsc", "legacy"),
    centre=None,
    random_state=None,
    visit=0,
    added=None,
):
    """
    Simulate a part of the sky as surveys would observe it.

    Parameters
    ----------
    side : `~astropy.units.Quantity`
        Side of the square, an angle; rounded up to whole patches of pixels.
    surveys : sequence of str or `~astro_disentangle.Survey`
        The surveys.
    centre : `~astropy.coordinates.SkyCoord`, optional
        Its middle; right ascension 150 deg, declination 2 deg by default.
    random_state : int, `numpy.random.Generator` or None
        Seed; the same seed gives the same field.
    visit : int
        Another visit has the same sky under other conditions and noise.
    added : (``Sources``, `torch.Tensor`), optional
        Further S sources of ``astro_disentangle.simulation.population``, and their
        offsets (west, north) from the middle in arcsec, shape (S, 2).

    Returns
    -------
    field : `Field`
        Mosaics, the same without noise, and what there is.

    Raises
    ------
    ValueError
        If the side is not a positive angle.
    SurveyMismatchError
        If a survey is unknown, or the tables lack one of its filters.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_disentangle.simulation.field import simulate_field
    >>> field = simulate_field(20 * u.arcsec, random_state=1)
    >>> field.mosaics["legacy"]["r"].shape, str(field.mosaics["hsc"].unit)
    ((80, 80), 'adu')
    """
    try:
        side = float(u.Quantity(side).to_value("arcsec"))
    except u.UnitConversionError as error:
        raise ValueError(f"'side' must be an angle; got {side!r}.") from error
    if not (math.isfinite(side) and side > 0):
        raise ValueError(f"'side' must be positive; got {side} arcsec.")
    surveys = tuple(get_survey(survey) for survey in surveys)
    seed = seed_of(random_state)
    centre = SkyCoord(150, 2, unit="deg") if centre is None else centre
    # Light of what stands beyond the edge reaches in.
    sources, position = draw_field(side + 8, torch_generator(seed, "field"))
    if added is not None:
        sources = sources.map(lambda a, b: torch.cat([a, b]), added[0])
        position = torch.cat([position, added[1]])
    ebv = torch.empty(1).exponential_(generator=torch_generator(seed, "field", "ebv"))
    mosaics, noiseless, conditions = {}, {}, {}
    for survey in surveys:

        def random(purpose, name=survey.name):
            return torch_generator(seed, "field", purpose, name, visit)

        seen = _observe(survey, side, sources, position, MEAN_EBV * ebv, random)
        pixels, image, given, sigma = seen
        conditions[survey.name] = given
        mosaics[survey.name] = to_cutout(
            pixels,
            survey,
            coord=centre,
            noise=sigma,
            psf_fwhm=given.psf_fwhm[0].numpy(),
        )
        noiseless[survey.name] = image / survey.nanojansky
    return Field(mosaics, noiseless, conditions, _table(sources, position, centre))


def _observe(survey, side, sources, position, ebv, random):
    """
    One survey's pixels and noiseless image, nJy, its conditions and noise.

    All bands are there: mosaics that lack one are no mosaics of it.
    """
    patches = math.ceil(side / survey.pixel_scale / survey.patch_size)
    wide = dataclasses.replace(survey, stamp_size=patches * survey.patch_size)
    conditions = draw_conditions(survey, 1, random("conditions"))
    response = 10 ** (-0.4 * (extinction(survey, ebv) + conditions.zero_point))
    fluxes = component_fluxes(survey, sources) * response
    error = torch.randn(2, generator=random("registration")) * survey.astrometric_error
    middle = (wide.stamp_size - 1) / 2
    place = middle + (position + error) / survey.pixel_scale
    images = render(
        wide,
        sources,
        fluxes[None],
        place[None],
        torch.ones(1, len(sources), dtype=torch.bool),
        psf_transform(wide, conditions),
    )
    sigma = pixel_noise(survey, conditions.depth, conditions.psf_fwhm)
    noise = correlated_noise(survey, images.shape, random("noise"))
    noise *= photon_factor(survey, images)
    pixels = images + noise * sigma[:, :, None, None]
    return pixels[0].numpy(), images[0].numpy(), conditions, sigma[0].numpy()


def _table(sources, position, centre):
    """What there is, as a table."""
    west, north = position.double().numpy().T
    table = QTable()
    table["coord"] = centre.spherical_offsets_by(-west * u.arcsec, north * u.arcsec)
    table["magnitude"] = sources.magnitude_i.numpy() * u.ABmag
    table["r_half"] = np.where(sources.is_star, 0, sources.r_half) * u.arcsec
    table["redshift"] = sources.redshift.numpy()
    table["is_star"] = sources.is_star.numpy()
    return table

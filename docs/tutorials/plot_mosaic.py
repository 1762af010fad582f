# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""
A whole field as another survey would show it
=============================================

Sources are found, each is painted in a tile of its own, and tiles come together without
seams, since all of them are painted from one plane of noise (:doc:`/mosaics`).
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from photutils.aperture import CircularAperture, aperture_photometry

from astro_disentangle import Disentangler
from astro_disentangle.simulation.field import simulate_field

# %%
# Not quite an arcminute, simulated as HSC and Legacy would observe them. Yours
# would be a mapping of band to `~astropy.nddata.CCDData`.

field = simulate_field(54 * u.arcsec, random_state=1)
hsc, legacy = field.mosaics["hsc"], field.mosaics["legacy"]

model = Disentangler.load()
view, sources = model.translate_mosaic(
    hsc, survey="legacy", wcs=legacy.wcs, random_state=3
)
print(
    f"{sources['painted'].sum()} of {len(sources)} sources, {view.meta['NTILES']} tiles"
)

# %%
# Observed, painted, observed by the other survey
# -----------------------------------------------

figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
images = {"HSC": hsc["r"], "HSC as Legacy": view["r"], "Legacy": legacy["r"]}
for axis, (title, image) in zip(axes, images.items(), strict=True):
    pixels = np.ma.masked_invalid(np.asarray(image.data, float))
    sigma = 1.4826 * np.ma.median(np.abs(pixels - np.ma.median(pixels)))
    axis.imshow(
        np.arcsinh(pixels / sigma / 2), origin="lower", cmap="gray", vmin=-1, vmax=4
    )
    axis.set(title=title, xlabel="x [px]", ylabel="y [px]")

# %%
# photutils on the result
# -----------------------
# The view has unit, WCS and uncertainty like any image, on the pixels of the Legacy
# mosaic that was given: sources are measured in both at once.

bright = field.sources[field.sources["magnitude"] < 23.5 * u.ABmag]
x, y = legacy.wcs.world_to_pixel(bright["coord"])
inside = (np.minimum(x, y) > 8) & (np.maximum(x, y) < legacy.shape[-1] - 9)
circles = CircularAperture(np.stack([x, y], 1)[inside], r=1.0 / 0.262)
fluxes = [
    aperture_photometry(image["r"], circles)["aperture_sum"].value
    for image in (legacy, view)
]
figure, axis = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
axis.scatter(*fluxes)
ends = np.array([0.8 * np.nanmin(fluxes[0]), 1.2 * np.nanmax(fluxes[0])])
axis.plot(ends, ends, color="0.4", lw=1)
axis.set(
    xscale="log",
    yscale="log",
    xlabel="Legacy, observed [nmgy]",
    ylabel="painted from HSC [nmgy]",
)

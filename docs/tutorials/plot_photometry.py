# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""
Photometry of a galaxy as another survey would have seen it
===========================================================

An HSC galaxy is painted as the Legacy Surveys would have observed it, a number of
times, and measured with photutils. The samples give the errors. Simulated galaxies,
whose truth is known, then show how far both can be trusted.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from photutils.aperture import CircularAperture

from astro_disentangle import Disentangler, simulate_pairs
from astro_disentangle.samples import load_sample

# %%
# A real galaxy
# -------------
# One of the packaged cut-outs of HSC: a mapping of band to `~astropy.nddata.CCDData`,
# as one reads it from FITS files. With ``n_samples`` the view is the mean of so many
# samples, with their spread as its uncertainty.

model = Disentangler.load()
galaxy = load_sample("hsc_red")
view = model.translate(galaxy, survey="legacy", n_samples=32, random_state=1)
view

# %%
# Its centre is the centre of the image. ``aperture_flux`` measures every sample with
# the aperture: what it gives as an error is that of the flux, correlated noise
# included.

middle = (view.shape[-1] - 1) / 2
aperture = CircularAperture((middle, middle), r=1.0 / 0.262)
fluxes = view.aperture_flux(aperture)
fluxes["magnitude"] = fluxes["flux"].to(u.ABmag)
fluxes["band", "flux", "flux_err", "magnitude"]

# %%
# One sample and the mean
# -----------------------
# A sample has the noise of a Legacy image; the mean has hardly any, and is no image
# that a telescope could have taken: use samples where noise matters.

sample = model.translate(galaxy, survey="legacy", random_state=1)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
images = {
    "HSC, r": galaxy["r"],
    "as Legacy, one sample": sample["r"],
    "mean of 32": view["r"],
}
for axis, (title, image) in zip(axes, images.items(), strict=True):
    pixels = np.nan_to_num(np.asarray(image.data, float))
    scale = np.median(np.abs(pixels[:8])) + 1e-9
    axis.imshow(np.arcsinh(pixels / scale / 2), origin="lower", cmap="gray")
    axis.set_title(title)
    axis.set_xlabel("x [px]")
axes[0].set_ylabel("y [px]")

# %%
# Against the truth
# -----------------
# The same for 48 simulated galaxies, under the conditions of the Legacy images that
# were simulated with them, so that their noiseless images can be measured with the same
# apertures.

pairs = simulate_pairs(48, random_state=5)
views = model.translate(
    pairs.cutouts("hsc"),
    survey="legacy",
    like=pairs.cutouts("legacy"),
    n_samples=16,
    random_state=1,
)
band = pairs.batch("legacy").survey.bands.index("r")
_, _, offset = pairs.batch("legacy").stamp()
predicted, error, true = [], [], []
for row, found in enumerate(views):
    middle = (found.shape[-1] - 1) / 2
    table = found.aperture_flux(CircularAperture((middle, middle), r=1.0 / 0.262))
    predicted.append(table["flux"][band].to_value(u.nJy))
    error.append(table["flux_err"][band].to_value(u.nJy))
    place = middle + offset[row].numpy()
    image = pairs.noiseless["legacy"][row, band].numpy().astype(float)
    circle = CircularAperture(place, r=1.0 / 0.262)
    true.append(circle.do_photometry(image)[0][0])
predicted, error, true = np.array(predicted), np.array(error), np.array(true)
known = np.isfinite(predicted) & (true > 0)
predicted, error, true = predicted[known], error[known], true[known]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.errorbar(true, predicted, error, fmt="o", ms=4, color="tab:blue")
ends = np.array([true.min(), true.max()])
left.plot(ends, ends, color="0.4", lw=1)
left.set(
    xscale="log",
    yscale="log",
    xlabel="true flux [nJy]",
    ylabel="flux of the view [nJy]",
)
right.hist((predicted - true) / error, bins=np.linspace(-4, 4, 17), color="tab:blue")
right.set(xlabel="(view - truth) / error", ylabel="galaxies")
inside = np.mean(np.abs(predicted - true) < error)
right.set_title(f"{inside:.0%} within one error")

# %%
# The error that is wanted here is that of the truth; ``flux_err`` is that of an
# observed flux, the noise of the Legacy image included, so that somewhat more than 68%
# are within it.

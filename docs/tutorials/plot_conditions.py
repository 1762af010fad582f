# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""
The same galaxy under other seeing and depth
============================================

What would this galaxy look like on a bad night, in a shallower survey, or under the
very conditions of some other image? Conditions are numbers (``psf_fwhm``, ``depth``) or
other cut-outs that were taken under them (``like``).
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from photutils.profiles import RadialProfile

from astro_disentangle import Disentangler
from astro_disentangle.evaluation.plots import to_rgb
from astro_disentangle.samples import load_sample, sample_names

model = Disentangler.load()
galaxy = load_sample("hsc_red")

# %%
# Seeing
# ------
# Three nights at the Blanco telescope, and the depth that goes with each. What is asked
# for is checked: twice the usual seeing at most, and 1.5 mag from the usual depth.

nights = [0.9, 1.3, 2.0] * u.arcsec
views = [
    model.translate(
        galaxy, survey="legacy", psf_fwhm=fwhm, n_samples=16, random_state=2
    )
    for fwhm in nights
]
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
axes[0].imshow(to_rgb(galaxy), origin="lower")
axes[0].set_title("HSC")
for axis, fwhm, view in zip(axes[1:], nights, views, strict=True):
    axis.imshow(to_rgb(view), origin="lower")
    axis.set_title(f"Legacy, {fwhm.value} arcsec")
for axis in axes:
    axis.set_xlabel("x [px]")

# %%
# Light moves outwards with the seeing, and its sum stays.

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
edges = np.arange(0, 14)
for fwhm, view in zip(nights, views, strict=True):
    middle = (view.shape[-1] - 1) / 2
    image = np.asarray(view["r"].data, float)
    profile = RadialProfile(image, (middle, middle), edges)
    axis.plot(profile.radius * 0.262, profile.profile, label=f"{fwhm}")
axis.set(xlabel="radius [arcsec]", ylabel="r [nmgy per pixel]", yscale="log")
axis.legend(title="FWHM")

# %%
# Depth
# -----
# One sample each: noise is what changes.

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, depth in zip(axes, [23.7, 24.4, 25.1] * u.ABmag, strict=True):
    view = model.translate(galaxy, survey="legacy", depth=depth, random_state=2)
    axis.imshow(view["r"].data, origin="lower", cmap="gray", vmin=-0.02, vmax=0.06)
    axis.set_title(f"5 sigma depth {depth.value}")
    axis.set_xlabel("x [px]")

# %%
# Like another image
# ------------------
# The instrument latent of other galaxies says under which conditions they were seen,
# PSF and noise in every band: a list of cut-outs is enough.

donors = [load_sample(name) for name in sample_names("legacy")]
view = model.translate(galaxy, survey="legacy", like=donors, random_state=2)
noise = view.uncertainty.array[:, 0, 0]
for band, sigma in zip(view.bands, noise, strict=True):
    print(f"{band}: noise of a pixel {sigma:.4f} {view.unit}")

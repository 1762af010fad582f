# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""
One ruler for two surveys
=========================

The ``physics`` latent describes the galaxy, whichever survey took the image. So a
redshift that is learned from the galaxies of one survey can be read from those of
another, and a galaxy of one can be looked up in the other.
"""

import matplotlib.pyplot as plt
import numpy as np

from astro_disentangle import Disentangler, simulate_pairs

# %%
# Galaxies that both surveys saw
# ------------------------------
# Simulated here, so that the truth is known; cut-outs of yours go in the same way. The
# latents of the two images of a galaxy are found apart, neither knows of the other.

model = Disentangler.load()
pairs = simulate_pairs(640, random_state=21)
latents = {name: model.transform(pairs.cutouts(name)) for name in pairs.surveys}
redshift = np.asarray(pairs.truth["redshift"])
galaxy = ~np.asarray(pairs.truth["is_star"], bool)

# %%
# A reading that is learned in HSC and used in Legacy
# ---------------------------------------------------
# Ridge regression: all that it knows of Legacy is nothing.


def features(table, rows):
    """Latents with a column of ones."""
    z = np.asarray(table["physics"], float)[rows]
    return np.concatenate([z, np.ones((len(z), 1))], 1)


rows = np.flatnonzero(galaxy)
learn, test = rows[: len(rows) // 2], rows[len(rows) // 2 :]
design = features(latents["hsc"], learn)
ridge = 3.0 * np.eye(design.shape[1])
weights = np.linalg.solve(design.T @ design + ridge, design.T @ redshift[learn])

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
for axis, name in zip(axes, pairs.surveys, strict=True):
    read = features(latents[name], test) @ weights
    left = 1 - np.var(read - redshift[test]) / np.var(redshift[test])
    axis.scatter(
        redshift[test], read, s=8, color="tab:blue" if name == "hsc" else "tab:orange"
    )
    axis.plot([0, 1.5], [0, 1.5], color="0.4", lw=1)
    axis.set(
        title=f"{name}: $R^2$ = {left:.2f}",
        xlabel="redshift",
        xlim=(0, 1.5),
        ylim=(0, 1.5),
    )
axes[0].set_ylabel("redshift read, learned from HSC alone")

# %%
# Two surveys, one map
# --------------------
# The first two principal components of all latents: colours mix by survey, and order by
# redshift.

both = np.concatenate(
    [np.asarray(latents[name]["physics"])[rows] for name in pairs.surveys]
)
both = both - both.mean(0)
_, _, axes_of = np.linalg.svd(both, full_matrices=False)
x, y = (both @ axes_of[:2].T).T
survey = np.repeat([0, 1], len(rows))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for number, (name, colour) in enumerate(
    zip(pairs.surveys, ("tab:blue", "tab:orange"), strict=True)
):
    left.scatter(
        x[survey == number], y[survey == number], s=5, color=colour, label=name
    )
left.legend()
points = right.scatter(x, y, s=5, c=np.tile(redshift[rows], 2), cmap="viridis")
figure.colorbar(points, ax=right, label="redshift")
for axis in (left, right):
    axis.set(xlabel="first component", ylabel="second component")

# %%
# The same galaxy in the other survey
# -----------------------------------
# ``similar`` ranks the galaxies of a catalogue by the cosine of their latents.

matches = model.similar(latents["hsc"][rows], latents["legacy"][rows], k=10)
best = matches[matches["rank"] == 1]
own = np.mean(np.asarray(best["row"]) == np.arange(len(rows)))
print(f"found first among {len(rows)}: {own:.0%}")

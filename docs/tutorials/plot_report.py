# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""
How far to trust a model: the report
====================================

Every claim of this package is a row of one table: what the latents hold of galaxies and
of instruments, what they give away, and how views compare with the truth, beside what
astronomers do without a network, and with controls that must fail (:doc:`/report`).
"""

import matplotlib.pyplot as plt
import numpy as np

from astro_disentangle import Disentangler, simulate_pairs

# %%
# On a few simulated pairs, which take seconds; a thousand give figures to quote. On
# real pairs of yours the rows that need no truth remain, and properties come from a
# table of labels.

model = Disentangler.load()
pairs = simulate_pairs(256, random_state=3)
scores = model.report(pairs, n_views=32, n_samples=8, baselines=False)
scores["group", "measure", "where", "value", "low", "high"][:8]

# %%
# What the physics latents hold
# -----------------------------
# The share of the variance of each property that a line through the latents explains,
# in each survey, with the 68% interval of a bootstrap over galaxies.

kept = [row for row in scores if row["measure"].endswith(", ridge")]
names = list(dict.fromkeys(row["measure"].split()[1].strip(",") for row in kept))
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for shift, survey in ((-0.2, "hsc"), (0.2, "legacy")):
    rows = [row for row in kept if row["where"] == survey]
    values, low, high = (
        np.array([row[n] for row in rows]) for n in ("value", "low", "high")
    )
    axis.bar(
        np.arange(len(names)) + shift,
        values,
        0.4,
        yerr=np.maximum([values - low, high - values], 0),
        label=survey,
    )
axis.set_xticks(range(len(names)), names, rotation=30)
axis.set(ylabel="$R^2$", ylim=(0, 1))
axis.legend()

# %%
# What they give away
# -------------------
# How often the survey can be told from ``physics``: one half is chance.

for row in scores:
    if row["measure"].startswith("survey accuracy"):
        print(f"{row['measure']:40s} {row['value']:.2f}")

# %%
# Controls
# --------
# These must be bad. If pairs that were shuffled are found again, or the wrong donors
# paint as well as the right ones, believe no other row.

for row in scores[scores["group"] == "control"]:
    print(f"{row['measure']:55s} {row['where']:12s} {row['value']:.2f}")

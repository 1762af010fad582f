# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Can a small network tell real stamps from simulated ones of equal magnitude?

``python benchmarks/real_or_simulated.py DATA_REAL`` finds the sources of real images,
measures the PSF and the noise of each image, simulates stamps under these conditions
and compares the two: by a convolutional network, by boosted trees on features made by
hand and by each feature alone. AUC is the probability that a real stamp gets the
higher value; 0.5 is the best that the simulator can do, and two draws of the simulator
must give it. Flaws made on purpose say what the test is able to see.

Stamps of one place have pixels, PSF and neighbours in common. A small image is one
place; a large one is cut into tiles with the width of a stamp between them, where no
stamps are taken, so that no two places share a pixel. The folds of the cross-validation
are whole places, the errors those of leaving out one place after another, and simulated
stamps go with the real ones whose magnitude they have.
"""

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import real_or_simulated_stamps as cuts
import torch
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

FOLDS, STEPS, HALF, SEEDS = 4, 120, 32, 2
#: Fewer real stamps than these teach a network nothing.
FEWEST = 20
FLAWS = {"white noise": {"white": True}, "PSF 15 % too wide": {"wider": 1.15}}
ALL, OUTSIDE, INSIDE = "all", "centre hidden", "centre alone"
COLUMNS = 12


@dataclass(frozen=True, eq=False)
class Sample:
    """N stamps: images (N, 1, n, n), features (N,), the real ones they are like."""

    images: torch.Tensor
    table: dict
    partner: np.ndarray
    place: np.ndarray

    @property
    def fold(self):
        return self.place % FOLDS

    def first(self):
        """One copy of each real stamp."""
        rows = np.unique(self.partner, return_index=True)[1]
        table = {name: column[rows] for name, column in self.table.items()}
        return Sample(self.images[rows], table, self.partner[rows], self.place[rows])


def split(real, simulated):
    """Train and test rows (bool) of both kinds, fold by fold."""
    for fold in range(FOLDS):
        test = real.fold == fold, simulated.fold == fold
        if test[0].any():
            yield [~rows for rows in test], test


def make_sample(pairs, *, empty, copies=1):
    """The stamps of several fields as one sample."""
    images, tables, partner, place, start = [], [], [], [], 0
    for k, (field, stamps) in enumerate(pairs):
        scaled = stamps.pixels[:, 0] * stamps.good / (3 * field.noise[0, 0])
        images.append(np.arcsinh(scaled)[:, None])
        tables.append(cuts.features(field, stamps, empty=empty))
        n = len(stamps) // copies
        partner.append(start + np.repeat(np.arange(n), copies))
        place.append(k * cuts.TILES**2 + stamps.place)
        start += n
    table = {k: np.concatenate([t[k] for t in tables]) for k in tables[0]}
    images = torch.tensor(np.concatenate(images), dtype=torch.float32)
    place = np.unique(np.concatenate(place), return_inverse=True)[1]
    return Sample(images, table, np.concatenate(partner), place)


def auc(scores, samples):
    """Area under the curve, its error and the number of places.

    Only stamps of one fold are compared: each fold has a classifier, and so a scale, of
    its own. The error is the jackknife's over places. A few places may agree by chance,
    so it is at least the error of independent stamps (DeLong et al. 1988).
    """
    good = [np.isfinite(x) for x in scores]
    real, simulated = (x[g] for x, g in zip(scores, good, strict=True))
    p, q = (s.place[g] for s, g in zip(samples, good, strict=True))
    places = np.unique(p)
    if min(len(real), len(simulated)) < 5 or len(places) < 2:
        return np.nan, np.nan, len(places)
    above = (real[:, None] > simulated) + 0.5 * (real[:, None] == simulated)
    compared = p[:, None] % FOLDS == q % FOLDS
    value = above[compared].mean()
    left = [
        above[compared & (p[:, None] != place) & (q != place)].mean()
        for place in places
    ]
    jackknife = (1 - 1 / len(places)) * ((np.array(left) - value) ** 2).sum()
    share = np.where(compared, above - value, 0) / compared.sum()
    independent = sum((share.sum(axis) ** 2).sum() for axis in (0, 1))
    return float(value), float(np.sqrt(max(jackknife, independent))), len(places)


def by_trees(real, simulated):
    """Scores of boosted trees on the features, out of fold."""
    names = [k for k, x in real.table.items() if np.isfinite(x).mean() > 0.5]
    tables = [np.stack([s.table[name] for name in names], 1) for s in (real, simulated)]
    scores = [np.zeros(len(t)) for t in tables]
    for train, test in split(real, simulated):
        parts = [t[rows] for t, rows in zip(tables, train, strict=True)]
        label = np.repeat([1, 0], [len(p) for p in parts])
        weight = np.concatenate([np.full(len(p), 1 / len(p)) for p in parts])
        trees = HistGradientBoostingClassifier(
            max_iter=80,
            max_depth=3,
            learning_rate=0.06,
            min_samples_leaf=8,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        )
        trees.fit(np.concatenate(parts), label, weight * len(label) / 2)
        for score, t, rows in zip(scores, tables, test, strict=True):
            score[rows] = trees.decision_function(t[rows])
    return scores


class Network(nn.Module):
    """Four convolutions, and the mean and the maximum of what they find."""

    def __init__(self, channels=1, width=16):
        super().__init__()
        sizes = (channels, width, 2 * width, 3 * width, 3 * width)
        layers = []
        for k in range(4):
            kernel, stride = (5, 2) if k == 0 else (3, 1)
            layers += [
                nn.Conv2d(sizes[k], sizes[k + 1], kernel, stride, 1, bias=False),
                nn.BatchNorm2d(sizes[k + 1]),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(2)] if k == 1 else []
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(6 * width, 1))

    def forward(self, x):
        x = self.body(x)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))[:, 0]


def turned(images, turns):
    """Images turned by quarters and, from the fourth on, mirrored."""
    images = images.flip(-1) if turns > 3 else images
    return torch.rot90(images, turns % 4, (-2, -1))


def train(real, simulated, seed):
    """A network trained on batches with as many real as simulated stamps."""
    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, STEPS)
    label = torch.cat([torch.ones(HALF), torch.zeros(HALF)])
    for _ in range(STEPS):
        chosen = [x[torch.randint(len(x), (HALF,))] for x in (real, simulated)]
        turns = torch.randint(8, (4,)).tolist()
        batch = torch.cat(chosen).unflatten(0, (-1, 4))
        batch = torch.stack([turned(batch[:, k], t) for k, t in enumerate(turns)], 1)
        loss = nn.functional.binary_cross_entropy_with_logits(
            network(batch.flatten(0, 1)), label
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def by_network(real, simulated, scale, view=ALL):
    """Scores of networks, out of fold, over all turns and several seeds."""
    size = real.images.shape[-1]
    r = scale * cuts.distance(size, np.full((1, 2), (size - 1) / 2))
    seen = {ALL: r > -1, OUTSIDE: r > cuts.CENTRE, INSIDE: r < cuts.CENTRE}[view]
    images = [s.images * torch.tensor(seen) for s in (real, simulated)]
    scores = [np.zeros(len(x)) for x in images]
    for rows, test in split(real, simulated):
        parts = [x[torch.tensor(k)] for x, k in zip(images, rows, strict=True)]
        for seed in range(SEEDS):
            network = train(*parts, seed)
            for score, x, k in zip(scores, images, test, strict=True):
                with torch.no_grad():
                    x = x[torch.tensor(k)]
                    score[k] += sum(network(turned(x, t)).numpy() for t in range(8))
    return scores


def rank_features(real, simulated):
    """AUC and medians of each feature, the most telling first."""
    rows = []
    for name in real.table:
        both = real.table[name], simulated.table[name]
        value, error, places = auc(both, (real, simulated))
        if np.isfinite(value):
            rows.append((name, value, error, places, *map(np.nanmedian, both)))
    return sorted(rows, key=lambda row: -abs(row[1] - 0.5))


def describe(field, stamps):
    """A line on the conditions of a field."""
    scale = field.survey.nanojansky
    x, y, _ = cuts.find_peaks(
        cuts.smooth(field.pixels[:1], field.fwhm),
        field.good,
        cuts.DETECTION * field.noise[0, 1],
    )
    rows = np.zeros(len(x), int)
    found = cuts.cut(field, field.pixels[None], field.good, x, y, rows).magnitude
    area = field.good.sum() * (field.survey.pixel_scale / 60) ** 2
    return {
        "field": field.name,
        "bands": field.bands,
        "psf_from": field.psf_from,
        "fwhm": field.psf[:, 0].round(3).tolist(),
        "beta": field.psf[:, 1].round(2).tolist(),
        "ellipticity": np.hypot(*field.psf[:, 2:].T).round(3).tolist(),
        "sigma": (field.noise[:, 0] / scale).round(5).tolist(),
        "injected": (field.injected / scale).round(5).tolist(),
        "counts": {m: round(float((found < m).sum() / area), 1) for m in range(21, 26)},
        "stamps": len(stamps),
    }


def study(pairs, *, empty, seed):
    """All comparisons of the stamps of some fields with simulated ones."""

    def simulated(seed, **flaw):
        stamps = [
            (f, cuts.simulated_stamps(f, s, seed, empty=empty, **flaw))
            for f, s in pairs
        ]
        return make_sample(stamps, empty=empty, copies=cuts.COPIES), stamps

    scale = pairs[0][0].survey.pixel_scale
    real = make_sample(pairs, empty=empty)
    plain, stamps = simulated(seed)
    other = simulated(seed + 1)[0].first()
    rows, networks = [], len(real.place) >= FEWEST

    def add(what, a, b, views=(ALL,)):
        rows.append((what, "trees", *auc(by_trees(a, b), (a, b))))
        for view in views if networks else ():
            scores = by_network(a, b, scale, view)
            rows.append((what, f"network, {view}", *auc(scores, (a, b))))

    add("real", real, plain, (ALL,) if empty else (ALL, OUTSIDE, INSIDE))
    add("another draw", other, plain)
    for name, flaw in FLAWS.items():
        if not (empty and "wider" in flaw):
            flawed = simulated(seed, **flaw)[0]
            add(f"real, {name}", real, flawed)
            add(f"another draw, {name}", other, flawed)
    result = {"stamps": len(real.place), "places": len(np.unique(real.place))}
    return result | {"auc": rows, "features": rank_features(real, plain)}, stamps


def picture(field, stamp):
    """A stamp as an image, in colours where there are three bands."""
    v = stamp / field.noise[:, 0, None, None]
    if len(v) >= 3:
        order = [field.bands.index(b) for b in ("irg" if "i" in field.bands else "zrg")]
        v = v[order]
        return np.moveaxis(np.clip(np.arcsinh(v / 3) / 4 + 0.15, 0, 1), 0, 2)
    return np.clip(np.arcsinh(v[0] / 2) / 5 + 0.3, 0, 1)


def gallery(rows, path):
    """Real stamps above simulated ones of their magnitudes."""
    figure = Figure((COLUMNS, 1.04 * 2 * len(rows)), dpi=100)
    axes = figure.subplots(2 * len(rows), COLUMNS, squeeze=False)
    for k, (real, simulated) in enumerate(rows):
        shown = [
            (f, s.pixels[i], s.magnitude[i]) for f, s in real for i in range(len(s))
        ]
        copies = [(f, s.pixels[i], 0) for f, s in simulated for i in range(len(s))]
        order = np.argsort([m for *_, m in shown])
        order = order[np.linspace(0, len(order) - 1, COLUMNS).astype(int)]
        for column, i in enumerate(order):
            j = i * cuts.COPIES
            for axis, (f, v, _) in zip(
                axes[2 * k : 2 * k + 2, column], (shown[i], copies[j]), strict=True
            ):
                axis.imshow(picture(f, v), origin="lower", cmap="gray", vmin=0, vmax=1)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 1, 0.03, 0.03)
    figure.savefig(path)


def show(name, result):
    """Print the tables of one comparison."""
    print(f"\n{name}: {result['stamps']} real stamps, {result['places']} places")
    for what, test, value, error, places in result["auc"]:
        print(f"  {what:<34}{test:<24}{value:6.3f} +- {error:.3f}{places:4} places")
    head = ("AUC", "error", "places", "real", "sim")
    print(f"  {'feature':<28}" + "".join(f"{word:>9}" for word in head))
    for feature, value, error, places, a, b in result["features"]:
        print(f"  {feature:<28}{value:9.3f}{error:9.3f}{places:9}{a:9.3f}{b:9.3f}")


def main():
    """Command line of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--survey", choices=(*cuts.SETS, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for JSON and figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*slice|Degrees of freedom")
    start, results, shown = time.perf_counter(), {"fields": []}, []
    for name, places in cuts.SETS.items():
        if options.survey not in ("all", name):
            continue
        read = [cuts.read_field(options.folder, *place) for place in places]
        for empty in (False, True):
            pairs = [(f, cuts.real_stamps(f, empty=empty)) for f in read]
            if empty:
                pairs = [(f, s) for f, s in pairs if len(s) >= FEWEST]
            else:
                results["fields"] += [describe(f, s) for f, s in pairs]
            if pairs:
                title = f"{name}, {'sky' if empty else 'sources'}"
                results[title], simulated = study(pairs, empty=empty, seed=options.seed)
                show(title, results[title])
                shown.append((pairs, simulated))
    for row in results["fields"]:
        print(row)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=1, default=float)
        (options.output / "real_or_simulated.json").write_text(text + "\n")
        gallery(shown, options.output / "real_or_simulated.png")


if __name__ == "__main__":
    main()

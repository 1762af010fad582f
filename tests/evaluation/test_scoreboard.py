# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The scoreboard on networks and images of which the answer is known."""

import dataclasses
import json
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import MaskedColumn, QTable
from astropy.utils.masked import Masked

from astro_disentangle import (
    Disentangler,
    PairedCutouts,
    get_survey,
    simulate_pairs,
)
from astro_disentangle.cli import main
from astro_disentangle.evaluation.baselines import match_psf, measured_catalog
from astro_disentangle.evaluation.figures import plot_leakage, plot_retention
from astro_disentangle.evaluation.latents import score_instrument
from astro_disentangle.evaluation.pair_files import save_pairs
from astro_disentangle.evaluation.photometry import aperture_sums
from astro_disentangle.evaluation.probes import probe_r2
from astro_disentangle.evaluation.scoreboard import _usable, known_of, scoreboard
from astro_disentangle.evaluation.views import Views, score_views
from astro_disentangle.quality import FLAGS, CutoutError, SurveyMismatchError
from astro_disentangle.simulation import simulate

FEW = {"n_views": 16, "n_samples": 4, "n_steps": 1}


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(64, random_state=11)


@pytest.fixture(scope="module")
def model():
    return Disentangler.load()


def _value(table, group, measure, where):
    row = table[
        (table["group"] == group)
        & (table["measure"] == measure)
        & (table["where"] == where)
    ]
    assert len(row) == 1
    return row[0]


class _Painted(Views):
    """Views with samples of our own making."""

    def __init__(self, pairs, samples, source="hsc", target="legacy"):
        self.source, self.target = source, target
        self.seen = pairs
        self.batch = pairs.batch(target)
        self.pixels, self.good, self.offset = self.batch.stamp()
        self.samples = samples.numpy()


def _perfect(pairs, count, generator, width=1.0):
    """Noiseless truth plus fresh noise of the right size."""
    truth, noise = pairs.noiseless["legacy"], pairs.batch("legacy").noise
    shape = (len(truth), count, *truth.shape[1:])
    drawn = torch.randn(shape, generator=generator) * noise[:, None, :, None, None]
    return truth[:, None] + width * drawn.nan_to_num(0.0)


def test_perfect_views_score_as_perfect(pairs):
    """White noise about the truth, against images with white noise about the truth."""
    generator = torch.Generator().manual_seed(0)
    observed = _perfect(pairs, 1, generator)[:, 0]
    views = _Painted(pairs, _perfect(pairs, 16, generator))
    views.pixels = observed
    rows, _ = score_views(views, pairs)
    scores = {(r.group, r.measure): r for r in rows}
    error = scores["error", "RMS of mean - truth over noise"].value
    assert error == pytest.approx(16**-0.5, rel=0.02)
    for part in ("galaxies", "sky"):
        width = scores["calibration", f"width of pixel z, {part}"]
        assert width.value == pytest.approx(1, abs=0.02)
    coverage = scores["calibration", "coverage of 2 arcsec flux, 68%"]
    assert coverage.value == pytest.approx(0.68, abs=0.1)
    wide = scores["calibration", "coverage of 2 arcsec flux, 95%"]
    assert wide.value == pytest.approx(0.95, abs=0.05)
    for band in "gr":
        flux = scores["flux", f"2 arcsec flux {band}, S/N >= 20: sum"]
        assert flux.value == pytest.approx(0, abs=0.005)
    for name in ("low", "middle", "Nyquist"):
        power = scores["power", f"sample over observed, {name} frequencies"]
        assert power.value == pytest.approx(1, abs=0.05)


def test_faults_of_views_are_seen(pairs):
    """Too bright, too sure, too smooth: each in its own row."""
    generator = torch.Generator().manual_seed(0)
    observed = _perfect(pairs, 1, generator)[:, 0]

    def scores(samples):
        views = _Painted(pairs, samples)
        views.pixels = observed
        rows, _ = score_views(views, pairs)
        return {(r.group, r.measure): r.value for r in rows}

    bright = scores(1.1 * _perfect(pairs, 16, generator))
    flux = bright["flux", "2 arcsec flux r, S/N >= 20: sum"]
    assert flux == pytest.approx(0.1, abs=0.01)
    sure = scores(_perfect(pairs, 16, generator, width=0.5))
    width = sure["calibration", "width of pixel z, sky"]
    assert width == pytest.approx(2, abs=0.15)
    assert sure["calibration", "coverage of 2 arcsec flux, 68%"] < 0.5
    smooth = scores(_perfect(pairs, 16, generator, width=0.1))
    assert smooth["power", "sample over observed, Nyquist frequencies"] < 0.3


def test_known_of_leaves_stars_and_words_out():
    pairs = simulate_pairs(80, random_state=2)
    labels, conditions, star = known_of(pairs)
    assert star.any()
    assert set(labels) >= {"redshift", "log_mass", "magnitude", "log_size"}
    assert all(np.isnan(value[star]).all() for value in labels.values())
    assert conditions["hsc", "psf_fwhm"].shape == (80, 5)
    for value in conditions.values():
        np.testing.assert_array_equal(np.isnan(value).all(1), star)
    table = QTable({"z": np.arange(80.0), "name": ["a"] * 80})
    assert list(known_of(pairs.labelled(table))[0]) == ["z"]


@pytest.mark.parametrize(
    "column",
    [
        [True, False, False, True],
        [1, 0, 0, 1],
        [1.0, 0.0, 0.0, 1.0],
        ["true", "false", "False", "TRUE"],
        np.array([b"T", b"F", b"F", b"T"]),
        MaskedColumn([True, False, True, True], mask=[0, 0, 1, 0]),
        MaskedColumn(["True", "False", "", "True"], mask=[0, 0, 1, 0]),
    ],
)
def test_stars_in_every_spelling(pairs, column):
    _, _, star = known_of(pairs[:4].labelled(QTable({"is_star": column})))
    assert star.tolist() == [True, False, False, True]


@pytest.mark.parametrize("column", [["yes", "no"], [0.0, 0.5], [np.nan, 1.0], [0, 2]])
def test_stars_that_are_neither_true_nor_false(pairs, column):
    with pytest.raises(CutoutError, match="'is_star'"):
        known_of(pairs[:2].labelled(QTable({"is_star": column})))


def test_sets_of_conditions_have_no_stars():
    """Sixty groups of four, of which ten have a star: the others are read."""
    groups, rng = np.repeat(np.arange(60), 4), np.random.default_rng(0)
    star = np.isin(np.arange(240), 4 * np.arange(10) + 1)
    seen = []

    def instrument(survey, sets, *, told=False):
        seen.extend(sets)
        return rng.normal(size=(len(sets), 3))

    latents = SimpleNamespace(physics={"hsc": None}, instrument=instrument)
    seeing = rng.normal(size=60)[groups][:, None]
    conditions = {("hsc", "psf_fwhm"): np.where(star[:, None], np.nan, seeing)}
    rows = score_instrument(latents, {}, conditions, groups, np.flatnonzero(~star))
    sets = seen[240:]
    assert not star[np.concatenate(sets)].any()
    assert sorted({len(s) for s in sets}) == [1, 4]
    assert [r.n for r in rows] == [50] * 6


def test_labels_of_every_kind(pairs):
    """Masked, integer, with a unit or without: floats, NaN where not known."""
    count = np.arange(64)
    masked = MaskedColumn(count, mask=count < 3)
    table = QTable(
        {
            "masked": masked,
            "whole": count,
            "size": Masked(count * u.arcsec, mask=count < 5),
            "r_half": 1.0 + count,
        }
    )
    labels, _, _ = known_of(pairs.labelled(table))
    assert np.isnan(labels["masked"]).sum() == 3
    assert np.isnan(labels["size"]).sum() == 5
    assert labels["whole"].dtype == float
    np.testing.assert_allclose(labels["log_size"], np.log10(1.0 + count))


def test_one_group_is_scored_as_far_as_that_goes(model, pairs):
    """Seeing cannot be tested across groups, nor donors be wrong."""
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    one = PairedCutouts(batches, groups=np.zeros(64, int), truth=pairs.truth)
    table = model.report(one, **FEW, baselines=False)
    assert "retention" in table["group"]
    assert not any("wrong donors" in text for text in table["measure"])


def test_what_cannot_be_measured_is_not_zero(pairs):
    """No good pixel in the aperture, and no noise that is known."""
    views = _Painted(pairs, _perfect(pairs, 4, torch.Generator().manual_seed(0)))
    views.good = torch.zeros_like(views.good)
    rows, _ = score_views(views, pairs)
    values = {(r.group, r.measure): r.value for r in rows}
    assert np.isnan(values["error", "RMS of mean - truth over noise"])
    assert np.isnan(values["calibration", "coverage of 2 arcsec flux, 68%"])


def test_widths_of_a_perfect_posterior_without_a_truth(pairs):
    """Pixels must not be sorted by the noise that is being judged."""
    generator = torch.Generator().manual_seed(0)
    views = _Painted(pairs, _perfect(pairs, 16, generator))
    views.pixels = _perfect(pairs, 1, generator)[:, 0]
    bare = PairedCutouts({name: pairs.batch(name) for name in pairs.surveys})
    rows, _ = score_views(views, bare)
    for part in ("galaxies", "sky"):
        width = [r.value for r in rows if r.measure == f"width of pixel z, {part}"]
        assert width == [pytest.approx(1, abs=0.03)]


def test_labels_of_seeing_may_be_one_number_or_none(model, pairs):
    table = QTable({f"psf_fwhm_{name}": np.full(64, 0.9) for name in pairs.surveys})
    table["psf_fwhm_hsc"][:5] = np.nan
    table["constant"] = np.ones(64)
    scores = model.report(pairs.labelled(table), **FEW, baselines=False)
    assert not any("constant" in text for text in scores["measure"])
    assert any("PSF matching" in text for text in scores["measure"])


def test_trees_take_a_band_that_is_missing(pairs):
    x = np.random.default_rng(0).normal(size=(100, 4))
    x[:, 2], x[1:, 3] = np.nan, np.nan
    assert probe_r2(x, x[:, 0], probe="trees") > 0.5


def test_labels_are_joined_by_name(pairs):
    as_bytes = QTable({"object_id": np.char.encode(pairs.object_id), "z": np.ones(64)})
    assert len(pairs.labelled(as_bytes).truth) == 64
    names = pairs.object_id[::-1]
    table = QTable({"object_id": names, "row": np.arange(64.0)[::-1]})
    np.testing.assert_array_equal(pairs.labelled(table).truth["row"], np.arange(64.0))
    with pytest.raises(CutoutError, match="object_id"):
        pairs.labelled(table[1:])
    with pytest.raises(CutoutError, match="64 pairs"):
        pairs.labelled(QTable({"row": [1.0]}))


def test_report_of_real_pairs_without_truth(model, pairs):
    """Rows that need a truth are missing, the others are there."""
    bare = PairedCutouts({name: pairs.batch(name) for name in pairs.surveys})
    table = model.report(bare, **FEW, baselines=False)
    assert not set(table["group"]) & {"retention", "transfer", "stars", "instrument"}
    assert {"leakage", "alignment", "flux", "error"} <= set(table["group"])
    assert all("truth" not in text for text in table["measure"])
    assert np.isfinite(table["value"]).all()


def test_report_with_everything(model, pairs, tmp_path):
    other = simulate_pairs(64, random_state=11, neighbours=1)
    few = {**FEW, "n_views": 48}
    table = model.report(pairs, other=other, directory=tmp_path, **few)
    inside = (table["low"] <= table["value"]) & (table["value"] <= table["high"])
    assert inside.mean() > 0.9
    # The trained model must beat the untrained one where it was trained to.
    error = _value(table, "error", "RMS of mean - truth over noise", "hsc->legacy")
    assert error["value"] < error["untrained"]
    recall = _value(table, "alignment", "recall@10", "hsc->legacy")
    assert recall["value"] > recall["untrained"] + 0.2
    shuffled = _value(table, "control", "recall@1, shuffled pairs", "hsc->legacy")
    assert shuffled["value"] < 0.1
    written = QTable.read(tmp_path / "scores.ecsv")
    np.testing.assert_array_equal(written["value"], table["value"])
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert len(rows) == len(table)
    for name in (
        *("retention", "leakage", "latents", "hsc_as_legacy", "legacy_as_hsc"),
        *("retrieval", "fluxes", "coverage", "deviations"),
    ):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    # With other neighbours: this model, what photometry finds, and what can be found.
    measure = "recall@1, other neighbours"
    found = _value(table, "alignment", measure, "hsc->legacy")
    assert found["untrained"] < 0.1 < found["classical"] < 1
    oracle = _value(table, "alignment", "recall@1, oracle", "hsc->legacy")
    assert oracle["value"] == oracle["untrained"] > 0.9
    over = _value(table, "alignment", f"{measure} over oracle", "hsc->legacy")
    assert over["value"] == pytest.approx(found["value"] / oracle["value"])
    assert over["aim"] == ">= 0.90"
    faint = np.char.endswith(np.asarray(table["measure"]), "worst bin, sigma")
    assert set(table["aim"][faint]) == {"+- 3"}
    for where in ("hsc->legacy", "legacy->hsc"):
        count = _value(table, "cost", "decoder evaluations of a translation", where)
        assert count["value"] in (1, 2)
    assert set(table["aim"][table["group"] == "cost"]) == {""}


def test_unusable_rows_are_in_no_score_and_no_picture(pairs):
    batches = {name: pairs.batch(name) for name in pairs.surveys}
    flags = torch.zeros(64, dtype=torch.int64)
    flags[:5] = int(FLAGS.UNUSABLE)
    batches["hsc"] = dataclasses.replace(batches["hsc"], flags=flags)
    batches["legacy"] = dataclasses.replace(batches["legacy"], flags=0 * flags)
    kept, other = _usable(PairedCutouts(batches), pairs)
    assert (len(kept), len(other)) == (59, 59)
    assert other.object_id == pairs.object_id[5:]


def test_report_says_what_is_wrong(model, pairs):
    with pytest.raises(CutoutError, match="at least 16"):
        model.report(pairs[:8])
    with pytest.raises(CutoutError, match="'other'"):
        model.report(pairs, other=pairs[:32])
    kids = simulate_pairs(16, surveys=("kids", "sdss"), random_state=1)
    with pytest.raises(SurveyMismatchError, match="'pairs'"):
        model.report(kids)


def test_same_report_twice(model, pairs):
    one, two = (
        scoreboard(model.network_, pairs, **FEW, baselines=False) for _ in range(2)
    )
    clock = np.char.startswith(np.asarray(one["measure"]), "seconds")
    assert clock.sum() == 4
    np.testing.assert_array_equal(one["value"][~clock], two["value"][~clock])


def test_command(tmp_path, capsys):
    arguments = ["report", "--simulated", "32", "--views", "8", "--samples", "4"]
    arguments += ["--steps", "1", "--no-baselines", "--output", str(tmp_path)]
    assert not main(arguments)
    assert "recall@1" in capsys.readouterr().out
    assert (tmp_path / "scores.ecsv").exists()


def test_command_on_a_test_set(tmp_path):
    """A file as the GalSim renderer writes it; what is in it is of no matter here."""
    path = tmp_path / "set.safetensors"
    save_pairs(path, simulate(4, 8, ["hsc", "legacy"], seed=5), seed=5)
    arguments = ["report", "--test-set", str(path), "--views", "8", "--samples", "4"]
    arguments += ["--steps", "1", "--no-baselines", "--output", str(tmp_path / "out")]
    assert not main(arguments)
    table = QTable.read(tmp_path / "out" / "scores.ecsv")
    assert {"leakage", "error", "alignment"} <= set(table["group"])


def test_aperture_photometry_reads_magnitudes():
    pairs = simulate_pairs(400, random_state=4)
    labels, _, star = known_of(pairs)
    catalog = measured_catalog(pairs.batch("hsc"))[~star]
    assert catalog.shape[1] == 32
    assert probe_r2(catalog, labels["magnitude"][~star], probe="trees") > 0.8


def test_matched_image_has_the_profile_of_the_target():
    """Downwards, against the noiseless image of the other survey.

    The two r filters differ, and with them the flux of a red galaxy, by a tenth:
    profiles are compared, each over the light within 2 arcsec. The index of a Moffat
    profile scatters, and the baseline knows its mean: 2%.
    """
    pairs = simulate_pairs(48, random_state=6, neighbours=None)
    hsc, legacy = (pairs.batch(name) for name in ("hsc", "legacy"))
    widths = [pairs.truth[f"psf_fwhm_{name}"].value for name in pairs.surveys]
    truth = pairs.noiseless["legacy"].numpy()
    bright = np.asarray(pairs.truth["magnitude"].value) < 21
    offset, red = legacy.stamp()[2], 1

    def share(images):
        inner, outer = (
            aperture_sums(images, legacy.survey, offset, radius)[:, red]
            for radius in (0.6, 2.0)
        )
        return inner / outer

    matched = match_psf(hsc, legacy, *widths).numpy()
    known = bright & np.isfinite(share(matched))
    assert known.sum() >= 8
    assert np.median(share(matched)[known] / share(truth)[known]) == pytest.approx(
        1, abs=0.02
    )
    unmatched = match_psf(hsc, legacy, widths[0], 1.001 * widths[0][:, :4]).numpy()
    assert np.median(share(unmatched)[known] / share(truth)[known]) > 1.1
    own = aperture_sums(hsc.stamp()[0].numpy(), hsc.survey, hsc.stamp()[2], 2.0)
    moved = aperture_sums(matched, legacy.survey, offset, 2.0)
    ratio = moved[known, red] / own[known, red]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


def test_psf_matching_says_where_the_source_ends():
    """Beyond the edge of the source's image there is nothing to compare with."""
    pairs = simulate_pairs(8, random_state=2)
    hsc, legacy = pairs.batch("hsc"), pairs.batch("legacy")
    widths = [pairs.truth[f"psf_fwhm_{name}"].value for name in ("hsc", "legacy")]
    cut = dataclasses.replace(hsc, good=hsc.good.clone())
    cut.good[..., : hsc.good.shape[-1] // 4] = False
    whole, part = (match_psf(batch, legacy, *widths).isfinite() for batch in (hsc, cut))
    lost = whole & ~part
    assert 0.15 < lost.float().mean() / whole.float().mean() < 0.35
    assert whole.any(-1).any(-1).sum() == hsc.present[:, :4].sum()


def test_apertures_count_no_pixel_outside_of_them():
    survey = get_survey("legacy")
    image = np.ones((1, 1, 32, 32))
    image[..., 0, 0] = np.nan
    assert np.isfinite(aperture_sums(image, survey, [[0, 0]])).all()
    image[..., 15, 15] = np.nan
    assert np.isnan(aperture_sums(image, survey, [[0, 0]])).all()


def test_figures_of_tables_without_their_rows():
    empty = QTable({"group": ["flux"], "measure": ["x"]})
    assert plot_retention(empty) is None
    assert plot_leakage(empty) is None

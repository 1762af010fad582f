# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Hyrax trains and runs the model by its import path, from files on disk."""

import logging

import numpy as np
import pytest
from conftest import TINY

from astro_disentangle import (
    FLAGS,
    CutoutError,
    DisentangleError,
    Disentangler,
    SurveyMismatchError,
    simulate_pairs,
)
from astro_disentangle.data.arrays import read_arrays

pytest.importorskip("hyrax", minversion="0.13")
pytestmark = pytest.mark.filterwarnings("ignore")

from hyrax import Hyrax  # noqa: E402
from hyrax.datasets import HyraxDataset  # noqa: E402

SIZE = 24


class CutoutFile(HyraxDataset):
    """Cut-outs of one survey in a file of numpy."""

    def __init__(self, config, data_location=None):
        with np.load(data_location) as file:
            self.columns = dict(file)
        super().__init__(config)

    def __len__(self):
        return len(self.columns["object_id"])

    def get_object_id(self, row):
        return str(self.columns["object_id"][row])

    def get_image(self, row):
        return self.columns["image"][row]

    def get_noise(self, row):
        return self.columns["noise"][row]

    def get_mask(self, row):
        return self.columns["mask"][row]

    def get_psf_fwhm(self, row):
        return self.columns["psf_fwhm"][row]

    def get_group(self, row):
        return self.columns["group"][row]


FIELDS = ["image", "noise", "mask", "psf_fwhm", "group"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of cut-outs of each survey, one galaxy of them without a good pixel."""
    pairs, folder = simulate_pairs(SIZE, random_state=7), tmp_path_factory.mktemp("in")
    for name in ("hsc", "legacy"):
        batch = pairs.batch(name)
        bad = ~batch.good.numpy()
        bad[5] = True
        np.savez(
            folder / f"{name}.npz",
            object_id=[f"galaxy {row}" for row in range(SIZE)],
            image=batch.pixels.numpy() / np.float32(batch.survey.nanojansky),
            noise=batch.noise.numpy() / np.float32(batch.survey.nanojansky),
            mask=bad,
            psf_fwhm=batch.psf_fwhm.numpy(),
            group=np.arange(SIZE) // 8,
        )
    return folder


CONFIG = """
[general]
results_dir = "results"
[model]
name = "astro_disentangle.hyrax.HyraxDisentangler"
[model.HyraxDisentangler]
n_steps = 6
precision = "float32"
[model.HyraxDisentangler.network]
{network}
[data_loader]
batch_size = 8
[split]
train = 0.67
validate = 0.33
"""


def _request(folder, *names):
    """Files of surveys, joined by the names of galaxies."""
    request = {}
    for place, name in enumerate(names):
        field = "join_field" if place else "primary_id_field"
        request[name] = {
            "dataset_class": "CutoutFile",
            "data_location": str(folder / f"{name}.npz"),
            "fields": ["image", "noise", "mask", "psf_fwhm", "group"],
            field: "object_id",
        }
    return request


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Start Hyrax as a user does, with a file of settings."""
    monkeypatch.chdir(tmp_path)

    def start(network=TINY, **changes):
        sizes = "\n".join(
            f"{k} = {list(v)}" if isinstance(v, tuple) else f"{k} = {v}"
            for k, v in network.items()
        )
        (tmp_path / "mine.toml").write_text(CONFIG.format(network=sizes))
        host = Hyrax(config_file=tmp_path / "mine.toml", setup_logging=False)
        logging.getLogger("hyrax").setLevel(logging.ERROR)
        for name, value in changes.items():
            host.set_config(name.replace("__", "."), value)
        return host

    return start


def _train(host, folder, *names, epochs=2):
    both = _request(folder, *names)
    host.set_config("data_request", {"train": both, "validate": both})
    host.set_config("train.epochs", epochs)
    return host.train()


def _infer(host, weights, folder, *names):
    """What Hyrax keeps of each field, in the order of the file."""
    host.set_config("data_request", {"infer": _request(folder, *names)})
    if weights is not None:
        host.set_config("infer.model_weights_file", str(weights))
    found = host.infer()
    place = {name: row for row, name in enumerate(found.ids())}
    rows = [found[place[f"galaxy {row}"]] for row in range(SIZE)]
    return {field: np.array([row[field] for row in rows]) for field in rows[0]}


def _expected(model, folder, name):
    """What the model itself says of the images of a file."""
    with np.load(folder / f"{name}.npz") as file:
        columns = dict(file)
    cutouts = read_arrays(
        columns["image"],
        name,
        noise=columns["noise"],
        mask=columns["mask"],
        psf_fwhm=columns["psf_fwhm"],
        object_id=columns["object_id"].tolist(),
    )
    return model.transform(cutouts, survey=name)


def test_packaged_latents_by_hyrax(host, files, model):
    found = _infer(host(), "default", files, "hsc", "legacy")
    for name, end in (("hsc", ""), ("legacy", "_legacy")):
        table = _expected(model, files, name)
        bad = np.isnan(table["physics"]).any(1)
        assert bad.tolist() == [row == 5 for row in range(SIZE)]
        spread = np.nanstd(table["physics"])
        for field, column in (("data", "physics"), ("instrument", "instrument")):
            np.testing.assert_allclose(
                found[field + end], table[column], atol=1e-5 * spread, rtol=1e-5
            )
        assert found["flags" + end].tolist() == table["flags"].tolist()


def test_trained_by_hyrax(host, files, tmp_path):
    trained = _train(host(), files, "hsc", "legacy")
    (path,) = tmp_path.glob("results/*/model.safetensors")
    assert trained.disentangler.trainer_.step == 4
    model = Disentangler.load(path)
    assert model.history_["step"].tolist() == [4]
    assert np.isfinite(model.history_["loss"]).all()
    # What is kept is what is run, by Hyrax, which finds it, and without.
    table = _expected(model, files, "legacy")
    found = _infer(host(), None, files, "legacy")
    np.testing.assert_allclose(found["data"], table["physics"], atol=1e-5)
    assert not list(tmp_path.rglob("prepare_inputs.py"))


def test_packaged_weights_trained_on(host, files, model, tmp_path):
    settings = {"train__model_weights_file": "default"}
    settings["model__HyraxDisentangler__learning_rate"] = 1e-6
    _train(host({}, **settings), files, "hsc", "legacy", epochs=1)
    (path,) = tmp_path.glob("results/*/model.safetensors")
    before = _expected(model, files, "hsc")["instrument"]
    after = _expected(Disentangler.load(path), files, "hsc")["instrument"]
    good = np.arange(SIZE) != 5
    off = np.abs(after - before)[good]
    assert 0 < off.max() < 0.05 * np.nanstd(before)


def test_resumed_by_hyrax(host, files, tmp_path):
    _train(host(), files, "hsc", "legacy", epochs=1)
    (checkpoint,) = tmp_path.glob("results/*/checkpoint_epoch_1.pt")
    resumed = _train(host(train__resume=str(checkpoint)), files, "hsc", "legacy")
    assert resumed.disentangler.trainer_.step == 4
    path = max(tmp_path.glob("results/*/model.safetensors"))
    assert Disentangler.load(path).history_["step"].tolist()[-1] == 4


def test_galaxies_without_partner(host, files, tmp_path):
    with np.load(files / "legacy.npz") as file:
        np.savez(tmp_path / "legacy.npz", **{n: v[:10] for n, v in file.items()})
    (tmp_path / "hsc.npz").write_bytes((files / "hsc.npz").read_bytes())
    found = _infer(host(), "default", tmp_path, "hsc", "legacy")
    alone = np.arange(SIZE) >= 10
    unusable = (found["flags_legacy"] & FLAGS.UNUSABLE) != 0
    assert unusable.tolist() == (alone | (np.arange(SIZE) == 5)).tolist()
    assert np.isnan(found["data_legacy"]).any(1).tolist() == unusable.tolist()
    assert np.isnan(found["data"]).any(1).tolist() == [r == 5 for r in range(SIZE)]


@pytest.mark.parametrize(
    ("changes", "names", "error", "message"),
    [
        ({}, ("hsc",), CutoutError, "two surveys"),
        ({"data_loader__batch_size": 1}, ("hsc", "legacy"), CutoutError, "batch_size"),
        (
            {"model__HyraxDisentangler__surveys": ["hsc", "hubble"]},
            ("hsc", "legacy"),
            SurveyMismatchError,
            "hubble",
        ),
        (
            {
                "model__HyraxDisentangler__surveys": ["hsc", "sdss"],
                "train__model_weights_file": "default",
            },
            ("hsc", "sdss"),
            RuntimeError,
            "did not load properly",
        ),
    ],
)
def test_errors_of_training(host, files, tmp_path, changes, names, error, message):
    for name in ("hsc", "legacy"):
        (tmp_path / f"{name}.npz").write_bytes((files / f"{name}.npz").read_bytes())
    (tmp_path / "sdss.npz").write_bytes((files / "hsc.npz").read_bytes())
    with pytest.raises(error, match=message) as caught:
        _train(host(**changes), tmp_path, *names)
    if error is RuntimeError:
        assert "must be those of" in str(caught.value.__cause__)


def test_data_sets_have_names_of_surveys(host, files, tmp_path):
    (tmp_path / "data.npz").write_bytes((files / "hsc.npz").read_bytes())
    with pytest.raises(CutoutError, match="names of surveys"):
        _infer(host(), "default", tmp_path, "data")


def test_processes_that_would_not_share(host, files, monkeypatch):
    import ignite.distributed

    trained = _train(host(), files, "hsc", "legacy", epochs=1)
    monkeypatch.setattr(ignite.distributed, "get_world_size", lambda: 2)
    with pytest.raises(DisentangleError, match="torchrun"):
        trained.train_batch(())

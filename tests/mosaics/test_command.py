# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Mosaics on the command line."""

import astropy.units as u
import pytest
from astropy.nddata import CCDData
from astropy.table import QTable

from astro_disentangle.cli import main
from astro_disentangle.simulation.field import simulate_field


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tract")
    field = simulate_field(20 * u.arcsec, surveys=["hsc"], random_state=1)
    image = field.mosaics["hsc"]
    for band in image.bands:
        image[band].write(folder / f"patch_{band}.fits")
    return [str(path) for path in sorted(folder.glob("*.fits"))]


def test_a_mosaic_is_translated_and_its_sources_are_listed(files, tmp_path, capsys):
    words = ["translate", "--mosaic", *files, "--source", "hsc", "--survey", "legacy"]
    assert main([*words, "--output", str(tmp_path)]) == 0, capsys.readouterr().err
    written = sorted(tmp_path.glob("translated_*.fits"))
    assert len(written) == 4
    assert CCDData.read(written[0]).shape == (77, 77)
    (table,) = tmp_path.glob("sources_*.ecsv")
    assert QTable.read(table)["painted"].any()
    assert "sources painted" in capsys.readouterr().out


def test_a_mosaic_has_no_position(files, tmp_path, capsys):
    words = ["translate", "--mosaic", *files, "--source", "hsc", "--survey", "legacy"]
    words += ["--position", "3", "4", "--output", str(tmp_path)]
    assert main(words) == 2
    assert "leave out the position" in capsys.readouterr().err

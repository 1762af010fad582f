# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Files whose headers lie are refused at once."""

import gzip
import os
from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits

from astro_disentangle import CutoutError, SurveyCutout
from astro_disentangle.data.headers import check_fits


def content():
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.ones((32, 32), np.float32)),
            fits.CompImageHDU(np.arange(1024, dtype=np.int16).reshape(32, 32)),
        ]
    )
    stream = BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


def card(name, value):
    return f"{name:<8}= {value:>20}".ljust(80).encode()


def test_sound_files_pass(tmp_path):
    (tmp_path / "a b.fits").write_bytes(content())
    check_fits(tmp_path / "a b.fits")
    (tmp_path / "x.fits.gz").write_bytes(gzip.compress(content()))
    check_fits(tmp_path / "x.fits.gz")
    (tmp_path / "link.fits").symlink_to(tmp_path / "a b.fits")
    check_fits(tmp_path / "link.fits")


def test_real_files_pass(real_data):
    for path in real_data.glob("*/*.fits"):
        check_fits(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NAXIS1", "-32"),
        ("NAXIS1", "1000000000"),
        ("NAXIS2", "1000000000000000"),
        ("NAXIS1", "32.5"),
        ("NAXIS1", "'wide'"),
        ("NAXIS1", "0"),
        ("NAXIS", "999"),
        ("BITPIX", "17"),
        ("NAXIS1", "60000"),
    ],
)
def test_headers_that_lie(tmp_path, name, value):
    raw = content()
    start = raw.index(f"{name:<8}= ".encode(), 2880)
    path = tmp_path / "bad.fits"
    path.write_bytes(raw[:start] + card(name, value) + raw[start + 80 :])
    for reader in (check_fits, SurveyCutout.read):
        with pytest.raises(CutoutError, match="bad.fits"):
            reader(path)


def test_other_bad_files(tmp_path):
    path = tmp_path / "bad.fits"
    raw = content()
    cases = {
        "empty": b"",
        "short": raw[:100],
        "truncated": raw[: 2880 * 2 + 100],
        "SIMPLE = F": card("SIMPLE", "F") + raw[80:],
        "no END": raw[:2880].replace(b"END", b"XXX") * 70,
        "text": b"hello " * 1000,
        "bomb": gzip.compress(bytes(2**22)),
        "damaged gzip": gzip.compress(raw)[:-30],
    }
    for case in cases.values():
        path.write_bytes(case)
        with pytest.raises(CutoutError, match="bad.fits"):
            check_fits(path)
    os.mkfifo(tmp_path / "fifo.fits")
    for other in (tmp_path, tmp_path / "fifo.fits", "/dev/zero"):
        with pytest.raises(CutoutError, match="regular file"):
            check_fits(other)

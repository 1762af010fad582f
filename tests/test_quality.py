# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""One registry of flags, one family of exceptions."""

import pytest

from astro_disentangle import quality
from astro_disentangle.quality import FLAGS, decode_flags, flag_table


def test_bits_are_distinct_powers_of_two():
    values = [flag.value for flag in FLAGS]
    assert len(set(values)) == len(FLAGS)
    assert all(value & (value - 1) == 0 for value in values)


def test_decode_is_the_inverse():
    for flag in FLAGS:
        assert decode_flags(flag.value) == [flag.name]
    assert decode_flags(FLAGS.UNUSABLE | FLAGS.NO_WCS) == ["UNUSABLE", "NO_WCS"]
    assert decode_flags(0) == []


@pytest.mark.parametrize("value", [-1, 1 << 40])
def test_unknown_bits_are_refused(value):
    with pytest.raises(ValueError, match="'value'"):
        decode_flags(value)


def test_unknown_name():
    with pytest.raises(AttributeError, match="NONE_SUCH"):
        _ = FLAGS.NONE_SUCH


def test_every_flag_is_in_the_documentation_table():
    text = flag_table()
    assert all(f"``{flag.name}``" in text for flag in FLAGS)


def test_one_family_of_exceptions():
    names = ("CutoutError", "SurveyMismatchError", "WeightsError", "NotFittedError")
    for name in names:
        assert issubclass(getattr(quality, name), quality.DisentangleError)
    assert issubclass(quality.CutoutError, ValueError)
    assert issubclass(quality.WeightsError, OSError)

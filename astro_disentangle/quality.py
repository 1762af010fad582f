# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Row flags and the exceptions of the package.

A row of a result is either finite or flagged: every condition that makes a
row less than ordinary has a bit here, and nothing else in the package defines
one. Conditions under which no sensible row can be made at all are exceptions,
each of them a `DisentangleError`.
"""

import operator
from dataclasses import dataclass

__all__ = [
    "FLAGS",
    "ROW_ERRORS",
    "CutoutError",
    "DisentangleError",
    "Flag",
    "NotFittedError",
    "SurveyMismatchError",
    "WeightsError",
    "check_count",
    "decode_flags",
    "flag_table",
]


class DisentangleError(Exception):
    """Base class of all errors raised on purpose by this package."""


class CutoutError(DisentangleError, ValueError):
    """A cut-out cannot be read as an image of the sky."""


class SurveyMismatchError(DisentangleError, ValueError):
    """A cut-out, a model and a survey do not belong together."""


class WeightsError(DisentangleError, OSError):
    """A weights file is missing, damaged or of another model."""


class NotFittedError(DisentangleError, ValueError, AttributeError):
    """The model has neither been fitted nor loaded."""


#: Errors of a row of a table. Others, a lack of memory say, are of the machine, and no
#: row is flagged or left out for them.
ROW_ERRORS = (
    DisentangleError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


def check_count(name, value):
    """
    A positive integer, or an error that names the argument.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : int
        Its value.

    Returns
    -------
    count : int
        The value as a plain integer.

    Raises
    ------
    ValueError
        If it is not a positive integer.

    Examples
    --------
    >>> from astro_disentangle.quality import check_count
    >>> check_count("n_samples", 4)
    4
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if isinstance(value, bool) or count < 1:
        raise ValueError(f"{name!r} must be a positive integer; got {value!r}.")
    return count


@dataclass(frozen=True)
class Flag:
    """One row flag.

    Parameters
    ----------
    name : str
        Name, in capitals.
    bit : int
        Position of the bit, from 0.
    meaning : str
        One sentence for the user.
    """

    name: str
    bit: int
    meaning: str

    @property
    def value(self):
        """Integer value of the flag (int)."""
        return 1 << self.bit


_REGISTRY = (
    ("UNUSABLE", "The row is NaN: too few good pixels to say anything."),
    ("BAD_PIXELS", "More than 5% of the pixels in the field are masked or not finite."),
    ("MISSING_BANDS", "At least one band of the survey is absent."),
    ("PADDED", "The image is smaller than the field or the position is near its edge."),
    ("NO_WCS", "No WCS: pixel scale and orientation were assumed."),
    ("NO_UNCERTAINTY", "No uncertainty: the noise was measured from the image itself."),
    ("NO_PSF", "The PSF is unknown in at least one band."),
    ("PIXEL_SCALE", "The pixel scale differs from that of the survey by more than 2%."),
    ("LARGE", "The source is larger than the field of the model."),
    ("BLANK", "No source is detected at the position."),
    ("ASSUMED_UNIT", "No unit: the survey's own flux unit was assumed."),
    ("POINT_SOURCE", "The source looks like a star."),
)


class _Flags:
    """The registry of row flags, read-only; ``FLAGS.NAME`` is an integer."""

    def __init__(self, rows):
        self._flags = {
            name: Flag(name, bit, text) for bit, (name, text) in enumerate(rows)
        }

    def __getattr__(self, name):
        try:
            return self.__dict__["_flags"][name].value
        except KeyError:
            raise AttributeError(f"no flag is named {name!r}") from None

    def __dir__(self):
        return list(self._flags)

    def __iter__(self):
        return iter(self._flags.values())

    def __len__(self):
        return len(self._flags)


#: The row flags; ``FLAGS.UNUSABLE`` is the integer value of a flag.
FLAGS = _Flags(_REGISTRY)


def decode_flags(value):
    """
    Names of the flags that are set in an integer.

    Parameters
    ----------
    value : int
        Value of a ``flags`` column.

    Returns
    -------
    names : list of str
        Names of the flags, lowest bit first.

    Raises
    ------
    ValueError
        If a bit is set that no flag owns.

    Examples
    --------
    >>> from astro_disentangle.quality import decode_flags
    >>> decode_flags(5)
    ['UNUSABLE', 'MISSING_BANDS']
    """
    value = int(value)
    if value < 0 or value >> len(FLAGS):
        raise ValueError(
            f"'value' must be between 0 and {(1 << len(FLAGS)) - 1}; got {value}. "
            "Was it written by a newer version of the package?"
        )
    return [flag.name for flag in FLAGS if value & flag.value]


def flag_table():
    """
    The registry as reStructuredText, for the documentation.

    Returns
    -------
    text : str
        A list-table with bit, value, name and meaning.

    Examples
    --------
    >>> from astro_disentangle.quality import flag_table
    >>> "UNUSABLE" in flag_table()
    True
    """
    rows = [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - bit",
        "     - value",
        "     - name",
        "     - meaning",
    ]
    for flag in FLAGS:
        rows += [
            f"   * - {flag.bit}",
            f"     - {flag.value}",
            f"     - ``{flag.name}``",
            f"     - {flag.meaning}",
        ]
    return "\n".join(rows) + "\n"

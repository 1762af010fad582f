# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Break each promise once and see its test turn red.

``python tests/reliability/sabotage.py [--only R07]`` runs, for every entry, the
named test in a process of its own in which a small part of the package has been
replaced, and fails if the test still passes. The same tests are first run as
they are: a test that is red anyway shows nothing. No file is changed.
"""

import argparse
import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
VARIABLE = "ASTRO_DISENTANGLE_SABOTAGE"
INPUTS = "tests/reliability/test_inputs.py"
FILES = "tests/reliability/test_files.py"
#: How a test fails that saw something; any other error is one of the sabotage.
SEEN = re.compile("assert|AssertionError|Failed: (DID NOT RAISE|not done after)")


@dataclass(frozen=True)
class Sabotage:
    """
    A promise, how it is broken, and the test that must see it.

    Parameters
    ----------
    number : str
        Number of the promise.
    promise : str
        One sentence.
    break_it : callable
        Changes the package in memory; its docstring says how.
    test : str
        Node id.
    """

    number: str
    promise: str
    break_it: Callable
    test: str


# --- how promises are broken -------------------------------------------------------


def wrap(change):
    """Replace `Disentangler.transform` by ``change(original, model, cutouts, kw)``."""
    from astro_disentangle import Disentangler

    original = Disentangler.transform

    def transform(self, cutouts, **options):
        return change(original, self, cutouts, options)

    Disentangler.transform = transform


def each_image(cutouts, change):
    """The cut-outs with ``change`` done to a copy of each image of a mapping."""
    if isinstance(cutouts, list):
        return [each_image(one, change) for one in cutouts]
    if not isinstance(cutouts, dict):
        return cutouts
    images = {}
    for band, image in cutouts.items():
        images[band] = copy.copy(image)
        change(images[band])
    return images


def on_images(change):
    """Do something to a copy of each image before it is read."""
    wrap(
        lambda original, model, cutouts, options: original(
            model, each_image(cutouts, change), **options
        )
    )


def on_rows(change):
    """Do something to the table of latents."""

    def altered(original, model, cutouts, options):
        table = original(model, cutouts, **options)
        change(table)
        return table

    wrap(altered)


def numbers_for_anything():
    """A cut-out that is refused gives a row of zeros."""
    import numpy as np
    from reliability.cases import cutout

    from astro_disentangle import DisentangleError

    def forgiving(original, model, cutouts, options):
        try:
            return original(model, cutouts, **options)
        except DisentangleError:
            table = original(model, cutout(), survey="legacy")
            table["physics"] = np.zeros_like(table["physics"])
            return table

    wrap(forgiving)


def no_flags():
    """All flags of a row are taken away."""

    def change(table):
        table["flags"] = 0

    on_rows(change)


def bytes_in_the_wrong_order():
    """Big-endian numbers are taken as little-endian."""

    def change(image):
        if not image.data.dtype.isnative:
            image._data = image.data.view(image.data.dtype.newbyteorder("="))

    on_images(change)


def nan_as_zero():
    """Pixels that are not finite count as good zeros."""
    import numpy as np

    def change(image):
        image._data = np.nan_to_num(image.data, posinf=0, neginf=0)

    on_images(change)


def large_numbers_are_kept():
    """Pixels of 1e38 count as good ones of 1e10."""
    import numpy as np

    def change(image):
        image._data = np.clip(image.data, -1e10, 1e10)

    on_images(change)


def unusable_rows_of_zeros():
    """Rows that are flagged as unusable are zero instead of NaN."""
    import numpy as np

    def change(table):
        for name in ("physics", "instrument"):
            table[name] = np.nan_to_num(table[name])

    on_rows(change)


def rows_about_their_mean():
    """A millionth of the mean over the batch is taken off each row."""

    def change(table):
        usable = table["physics"][(table["flags"] & 1) == 0]
        table["physics"] = table["physics"] - 1e-6 * usable.mean(0)

    on_rows(change)


def flag_lost_where_most_is_bad():
    """BAD_PIXELS is not set where the row is unusable."""
    from astro_disentangle import FLAGS

    def change(table):
        unusable = (table["flags"] & FLAGS.UNUSABLE) != 0
        table["flags"][unusable] &= ~FLAGS.BAD_PIXELS

    on_rows(change)


def zero_point_ignored():
    """MAGZERO is not looked at."""

    def change(image):
        image.meta = {k: v for k, v in image.meta.items() if k != "MAGZERO"}

    on_images(change)


def any_unit_is_a_flux():
    """A unit that is no flux is left out."""
    import astropy.units as u

    def change(image):
        if not u.Unit(image.unit).is_equivalent(u.nJy):
            image._unit = None

    on_images(change)


def scale_of_the_survey():
    """Pixel scales of headers are replaced by that of the survey."""

    def change(image):
        image._wcs = None
        image.meta = {}

    on_images(change)


def degenerate_wcs_mended():
    """An error of the WCS gives the row of an image without one, unflagged."""
    from astro_disentangle import FLAGS, CutoutError

    def mending(original, model, cutouts, options):
        try:
            return original(model, cutouts, **options)
        except CutoutError:
            for one in cutouts if isinstance(cutouts, list) else [cutouts]:
                for image in one.values():
                    image._wcs = None
            table = original(model, cutouts, **options)
            table["flags"] &= ~FLAGS.NO_WCS
            return table

    wrap(mending)


def bad_pixels_set_in_place():
    """Pixels that are not finite are set to zero in the user's own array."""
    import numpy as np

    def tidy(original, model, cutouts, options):
        for one in cutouts:
            for image in one.values():
                image.data[~np.isfinite(image.data)] = 0
        return original(model, cutouts, **options)

    wrap(tidy)


def header_gets_a_card():
    """The name of an object is written into the header that was given."""
    from astro_disentangle import Disentangler

    original = Disentangler.translate

    def translate(self, cutouts, **options):
        for one in cutouts if isinstance(cutouts, list) else [cutouts]:
            for image in one.values():
                image.meta["OBJECT"] = "seen"
        return original(self, cutouts, **options)

    Disentangler.translate = translate


def files_unchecked():
    """Files are opened without a look at what they are."""
    from astro_disentangle.data import fits, headers

    fits.check_fits = headers.check_fits = lambda path: None


def names_must_be_ascii():
    """Paths are taken as ASCII."""
    from astro_disentangle.data import headers

    original = headers.check_fits

    def check(path):
        str(path).encode("ascii")
        original(path)

    headers.check_fits = check


REGISTRY = (
    Sabotage(
        "R05",
        "What is no image is refused by name and rule.",
        numbers_for_anything,
        f"{INPUTS}::test_r05_bad_images_are_refused[uncertainty of another shape]",
    ),
    Sabotage(
        "R05",
        "A poor image is flagged.",
        no_flags,
        f"{INPUTS}::test_r05_poor_images_are_flagged[a missing band]",
    ),
    Sabotage(
        "R06",
        "The layout of an array in memory does not matter.",
        bytes_in_the_wrong_order,
        f"{INPUTS}::test_r06_arrays_of_any_layout[big-endian float32]",
    ),
    Sabotage(
        "R07",
        "Pixels that are not finite count as masked.",
        nan_as_zero,
        f"{INPUTS}::test_r07_non_finite_pixels[nan-edge]",
    ),
    Sabotage(
        "R07",
        "Numbers that no sky has count as masked.",
        large_numbers_are_kept,
        f"{INPUTS}::test_r07_non_finite_pixels[1e38-edge]",
    ),
    Sabotage(
        "R08",
        "A row is finite or flagged as unusable and NaN, never neither.",
        unusable_rows_of_zeros,
        f"{INPUTS}::test_r08_nan_never_enters_silently[0]",
    ),
    Sabotage(
        "R08",
        "No NaN is without its flag.",
        no_flags,
        f"{INPUTS}::test_r08_nan_never_enters_silently[0]",
    ),
    Sabotage(
        "R09",
        "A bad row leaves all other rows unchanged to the bit.",
        rows_about_their_mean,
        f"{INPUTS}::test_r09_a_bad_row_leaves_the_others_alone[nan-2]",
    ),
    Sabotage(
        "R10",
        "A larger masked share never takes a flag away.",
        flag_lost_where_most_is_bad,
        f"{INPUTS}::test_r10_flags_are_monotone",
    ),
    Sabotage(
        "R10",
        "A fully masked image is flagged.",
        no_flags,
        f"{INPUTS}::test_r10_masked_share[100]",
    ),
    Sabotage(
        "R11",
        "The unit of an image does not change its latents.",
        zero_point_ignored,
        f"{INPUTS}::test_r11_units[adu with zero point]",
    ),
    Sabotage(
        "R11",
        "A unit that is no flux is refused.",
        any_unit_is_a_flux,
        f"{INPUTS}::test_r11_other_units_are_refused[m]",
    ),
    Sabotage(
        "R12",
        "A pixel scale that the survey cannot have is refused with both values.",
        scale_of_the_survey,
        f"{INPUTS}::test_r12_wrong_survey[coarse WCS of legacy]",
    ),
    Sabotage(
        "R13",
        "A degenerate WCS is refused or flagged, never mended.",
        degenerate_wcs_mended,
        f"{FILES}::test_r13_degenerate_wcs_on_the_command_line[missing]",
    ),
    Sabotage(
        "R14",
        "The arrays of a cut-out are never modified.",
        bad_pixels_set_in_place,
        f"{INPUTS}::test_r14_inputs_are_not_modified[transform-files]",
    ),
    Sabotage(
        "R14",
        "The header of a cut-out is never modified.",
        header_gets_a_card,
        f"{INPUTS}::test_r14_inputs_are_not_modified[translate-mapping]",
    ),
    Sabotage(
        "R15",
        "What is no regular file is refused at once.",
        files_unchecked,
        f"{FILES}::test_r15_odd_files_that_are_refused[FIFO]",
    ),
    Sabotage(
        "R15",
        "Names of files may hold any letter.",
        names_must_be_ascii,
        f"{FILES}::test_r15_odd_files_that_are_read[non-ASCII path]",
    ),
)


def pytest_configure(config):
    """Break the promise that the environment names; pytest calls this."""
    number = os.environ.get(VARIABLE)
    if number is not None:
        REGISTRY[int(number)].break_it()


def run(tests, number=None):
    """Exit status of pytest and the names and reasons of the tests that failed."""
    environment = dict(os.environ)
    environment.pop(VARIABLE, None)
    # pytest cuts the reason of a failure to the width of the terminal.
    environment["COLUMNS"] = "300"
    if number is not None:
        environment[VARIABLE] = str(number)
    places = [str(FOLDER), str(FOLDER.parent), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    words = ["-p", "sabotage", "-p", "no:cacheprovider", "-q", "--tb=line", "-rf"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    failed = re.findall(
        r"^FAILED (.*?\.py::.*?)(?: - (.*))?$", done.stdout, re.MULTILINE
    )
    return done.returncode, dict(failed), done.stdout + done.stderr


def main():
    """Print the table; 1 if a broken promise was not seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="NUMBER", help="such as R07")
    only = parser.parse_args().only
    chosen = {
        index: entry
        for index, entry in enumerate(REGISTRY)
        if only in (None, entry.number)
    }
    if not chosen:
        parser.error(f"no promise has the number {only}")
    status, before, output = run(sorted({entry.test for entry in chosen.values()}))
    if status not in (0, 1):
        print(output)
        return 1
    unseen = 0
    for index, entry in chosen.items():
        status, after, output = run([entry.test], index)
        if entry.test in before:
            verdict = "RED ALREADY"
        elif not SEEN.match(after.get(entry.test, "assert")):
            verdict = "CRASHED"
        elif status == 1 and entry.test in after:
            verdict = "red"
        else:
            verdict = "GREEN" if status == 0 else f"NOT RUN (status {status})"
        unseen += verdict != "red"
        print(f"{entry.number}  {verdict:<6} {entry.promise}")
        print(f"      sabotage: {entry.break_it.__doc__}")
        print(f"      test:     {entry.test.rpartition('/')[2]}")
        print(f"      seen as:  {(after.get(entry.test) or '-')[:100]}", flush=True)
    print(f"{len(chosen) - unseen} of {len(chosen)} broken promises were seen")
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())

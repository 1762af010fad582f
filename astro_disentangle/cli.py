# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The command ``astro-disentangle``."""

import argparse
import re
import sys
import time
from pathlib import Path

__all__ = ["main"]

#: Formats that hold a latent of many numbers in one column.
_TABLES = (".ecsv", ".fits")


def main(arguments=None):
    """
    Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the command's name; those of the process by default.

    Returns
    -------
    status : int
        0 when all went well, 2 for bad input, 130 when interrupted.

    Examples
    --------
    >>> from astro_disentangle.cli import main
    >>> main(["transform", "missing.fits", "--output", "latents.ecsv"])
    2
    """
    options = _parser().parse_args(arguments)
    from astro_disentangle.quality import DisentangleError

    try:
        options.run(options)
    except KeyboardInterrupt:
        print("astro-disentangle: interrupted", file=sys.stderr)
        return 130
    except (DisentangleError, ImportError, OSError, ValueError, TypeError) as error:
        print(f"astro-disentangle: {error}", file=sys.stderr)
        return 2
    return 0


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser, *_):
        from astro_disentangle import __version__

        print(f"astro_disentangle {__version__}")
        parser.exit()


def _parser():
    parser = argparse.ArgumentParser(
        prog="astro-disentangle",
        description="Separate galaxies from the telescopes that took their images.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="latents and translations of samples")
    demo.set_defaults(run=_demo)

    transform = commands.add_parser("transform", help="latents of cut-outs")
    transform.add_argument("--survey", help="survey, if the headers do not say")
    transform.set_defaults(run=_transform)

    translate = commands.add_parser("translate", help="another survey's view")
    translate.add_argument("--survey", required=True, help="survey to paint")
    translate.add_argument("--source", help="survey, if the headers do not say")
    translate.add_argument(
        "--like",
        nargs="+",
        metavar="FILES",
        help="paint under the conditions of these cut-outs",
    )
    translate.add_argument(
        "--psf-fwhm", type=float, metavar="ARCSEC", help="FWHM to paint, all bands"
    )
    translate.add_argument(
        "--depth", type=float, metavar="MAG", help="5 sigma depth to paint, all bands"
    )
    translate.add_argument(
        "--wcs",
        metavar="FILE",
        help="paint into the pixels of this FITS image (default: the survey's own)",
    )
    translate.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="more than one: mean and spread, and one file with the samples "
        "(default 1)",
    )
    translate.add_argument("--steps", type=int, metavar="N", help="steps of the flow")
    translate.set_defaults(run=_translate)

    similar = commands.add_parser("similar", help="galaxies of a catalogue like these")
    similar.add_argument(
        "query", help="table of latents that transform wrote, or folder of embed"
    )
    similar.add_argument(
        "--catalog", required=True, help="table or folder of latents, of any survey"
    )
    similar.add_argument(
        "--method",
        choices=("auto", "exact", "approximate"),
        default="auto",
        help="of a search in a folder (default: with an index from 1e6 rows)",
    )
    similar.add_argument("-k", type=int, default=10, metavar="N", help="matches (10)")
    similar.add_argument(
        "--weights", default="default", metavar="FILE", help="weights of the latents"
    )
    similar.set_defaults(run=_similar)

    embed = _embed_parser(commands)
    for command in (transform, translate):
        command.add_argument(
            "files",
            nargs="+",
            metavar="FILES",
            help="whole cut-outs, or one FITS file for each band",
        )
        command.add_argument("--band", help="band, if the headers do not say")
        where = command.add_mutually_exclusive_group()
        where.add_argument(
            "--position",
            nargs=2,
            type=float,
            metavar=("X", "Y"),
            help="0-based pixel of the galaxy (default: centre of the image)",
        )
        where.add_argument(
            "--sky",
            nargs=2,
            type=float,
            metavar=("RA", "DEC"),
            help="ICRS position of the galaxy in degrees",
        )
        command.add_argument(
            "--weights", default="default", metavar="FILE", help="other weights"
        )

    fit = _fit_parser(commands)
    add = _add_survey_parser(commands)
    report = _report_parser(commands)
    for command in (demo, transform, translate, similar, embed, fit, add, report):
        what = "table (.ecsv, .fits)" if command in (transform, similar) else "folder"
        command.add_argument(
            "--output",
            required=command is not demo,
            default=Path("demo"),
            type=Path,
            help=f"{what} to write",
        )
        command.add_argument("--seed", type=int, default=0, help="of the noise (0)")
        command.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    for command in (transform, embed):
        command.add_argument(
            "--donors",
            choices=("neighbours",),
            help="read the instrument from galaxies near on the sky (default: from "
            "each cut-out itself)",
        )
    for command in (transform, translate, similar, embed):
        command.add_argument(
            "--dtype",
            choices=("float32", "bfloat16"),
            default="float32",
            help="of the matrix products; bfloat16 is faster",
        )
    return parser


def _embed_parser(commands):
    embed = commands.add_parser("embed", help="latents of a whole HATS catalogue")
    embed.add_argument("catalog", metavar="CATALOG", help="folder or address of it")
    embed.add_argument("--survey", help="survey, if the names of the bands do not say")
    embed.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME", help="columns to keep"
    )
    embed.add_argument(
        "--extension", metavar="NAME", help="also an extension of the catalogue"
    )
    embed.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: threads)"
    )
    embed.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    embed.add_argument(
        "--weights", default="default", metavar="FILE", help="other weights"
    )
    embed.set_defaults(run=_embed)
    return embed


def _fit_parser(commands):
    fit = commands.add_parser("fit", help="train on pairs of cut-outs")
    fit.add_argument("--surveys", nargs=2, default=["hsc", "legacy"], metavar="NAME")
    fit.add_argument("--from", dest="start", metavar="WEIGHTS", help="fine-tune these")
    fit.add_argument("--recipe", default="default", help="default or counterfactual")
    _add_training(fit, steps=2000)
    fit.set_defaults(run=_fit)
    return fit


def _add_survey_parser(commands):
    add = commands.add_parser("add-survey", help="learn a further survey from pairs")
    add.add_argument(
        "--survey", required=True, metavar="NAME", help="described one, or JSON file"
    )
    add.add_argument(
        "--known",
        default="hsc",
        metavar="NAME",
        help="survey of the weights that the pairs are of too (hsc)",
    )
    add.add_argument(
        "--from",
        dest="start",
        default="default",
        metavar="WEIGHTS",
        help="weights that get the survey (default)",
    )
    _add_training(add, steps=600)
    add.set_defaults(run=_add_survey)
    return add


def _add_training(command, steps):
    """Options of commands that train."""
    command.add_argument(
        "--pairs",
        required=True,
        metavar="PATH",
        help="folder with a folder for each survey, with files of the same names "
        "in both, as PairedCutouts.write or SurveyCutout.write make them; or Parquet "
        "files or a HATS catalogue of the Multimodal Universe with both images",
    )
    command.add_argument(
        "--steps", type=int, default=steps, metavar="N", help=f"({steps})"
    )
    command.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    command.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="share of the sky to hold out and to measure the loss on",
    )
    command.add_argument(
        "--order",
        type=int,
        default=6,
        metavar="N",
        help="HEALPix order of its cells (6; more for less than 50 square degrees)",
    )
    command.add_argument(
        "--stream",
        action="store_true",
        help="read tables as they are needed, not into memory",
    )
    command.add_argument(
        "--workers", type=int, default=0, metavar="N", help="that read a stream ahead"
    )
    command.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="parts of a step, shared by the processes of torchrun (one for each)",
    )
    command.add_argument(
        "--resume", action="store_true", help="go on with a stopped run"
    )


def _report_parser(commands):
    report = commands.add_parser("report", help="scores of a model, with figures")
    data = report.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--simulated", type=int, metavar="N", help="score on N simulated pairs"
    )
    data.add_argument("--pairs", metavar="PATH", help="score on these, as for fit")
    report.add_argument(
        "--surveys",
        nargs=2,
        metavar="NAME",
        help="surveys of the pairs (default: the first two of the weights)",
    )
    data.add_argument(
        "--test-set",
        metavar="FILE",
        help="score on pairs that GalSim rendered, as "
        "astro_disentangle.evaluation.galsim_pairs writes them",
    )
    report.add_argument(
        "--labels",
        metavar="TABLE",
        help="properties of the pairs: a column of numbers each, and object_id",
    )
    report.add_argument(
        "--weights", default="default", metavar="FILE", help="weights to score"
    )
    report.add_argument(
        "--views", type=int, default=256, metavar="N", help="translated pairs (256)"
    )
    report.add_argument(
        "--samples", type=int, default=16, metavar="N", help="of each view (16)"
    )
    report.add_argument("--steps", type=int, metavar="N", help="of the flow")
    report.add_argument(
        "--no-baselines", action="store_true", help="leave the baselines out"
    )
    report.set_defaults(run=_report)
    return report


def _demo(options):
    import torch
    from photutils.aperture import CircularAperture

    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.evaluation.plots import plot_translations
    from astro_disentangle.samples import load_sample, sample_names

    start = time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    model = Disentangler.load(device=options.device)
    latents, table, panels = [], [], []
    for source, target in (("hsc", "legacy"), ("legacy", "hsc")):
        names = sample_names(survey=source)
        galaxies = [load_sample(name) for name in names]
        latents.append(model.transform(galaxies, survey=source))
        views = model.translate(
            galaxies,
            survey=target,
            source=source,
            n_samples=8,
            random_state=options.seed,
        )
        singles = model.translate(
            galaxies, survey=target, source=source, random_state=options.seed
        )
        for index, name in enumerate(names):
            _write_bands(singles[index], name, options.output)
            view = views[index]
            centre = (view.data.shape[-1] - 1) / 2
            scale = view.survey.pixel_scale
            flux = view.aperture_flux(CircularAperture((centre, centre), 1.0 / scale))
            row = flux[list(flux["band"]).index("r")]
            value = row["flux"].to_value("nJy")
            error = row["flux_err"].to_value("nJy")
            table.append(
                (
                    name,
                    f"{source} -> {target}",
                    _magnitude(value),
                    1.0857 * error / max(value, error),
                    int(latents[-1]["flags"][index]),
                )
            )
            panels.append(
                (f"{name}\n{source} to {target}", galaxies[index], singles[index])
            )
    _stack(latents).write(options.output / "latents.ecsv", overwrite=True)
    plot_translations(panels, path=options.output / "demo.png")
    print(f"{'object':<22}{'direction':<16}{'r (2 arcsec)':>14}{'error':>8}  flags")
    for name, direction, magnitude, error, flags in table:
        print(
            f"{name:<22}{direction:<16}{magnitude:>10.2f} mag{error:>8.2f}  "
            f"{_flag_names(flags)}"
        )
    seconds = time.monotonic() - start
    print(
        f"\n{len(table)} galaxies, {seconds:.0f} s on {torch.get_num_threads()} "
        f"threads; latents.ecsv, demo.png and the translated images are in "
        f"{options.output}"
    )


def _transform(options):
    _check_table(options.output)
    cutouts = _read_files(options.files, options.band)
    model = _load(options)
    latents = model.transform(
        cutouts,
        survey=options.survey,
        position=_position(options),
        donors=options.donors,
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    latents.write(options.output, overwrite=True)
    for name, flags in zip(latents["object_id"], latents["flags"], strict=True):
        print(f"{name}: {_flag_names(flags)}")
    print(f"{len(latents)} rows in {options.output}")


def _load(options):
    from astro_disentangle.disentangler import Disentangler

    return Disentangler.load(
        options.weights, device=options.device, dtype=options.dtype
    )


def _embed(options):
    import warnings

    from astro_disentangle.embedding import embed_catalog
    from astro_disentangle.embedding.schedule import local_client
    from astro_disentangle.quality import CutoutError

    with local_client(options.workers) as client, warnings.catch_warnings():
        # What went wrong is said below.
        warnings.simplefilter("ignore", UserWarning)
        embedding = embed_catalog(
            options.weights,
            options.catalog,
            options.output,
            client,
            survey=options.survey,
            columns=options.columns,
            extension=options.extension,
            batch_size=options.batch_size,
            device=options.device,
            dtype=options.dtype,
            donors=options.donors,
            progress=sys.stderr.isatty(),
        )
    print(
        f"{embedding.n_rows} rows of {embedding.n_partitions} partitions, "
        f"{embedding.n_new} of them new, in {embedding.path}"
    )
    problems = " ".join(embedding.problems())
    if embedding.broken:
        raise CutoutError(problems)
    if problems:
        print(problems, file=sys.stderr)


def _similar(options):
    _check_table(options.output)
    both = [
        path if Path(path).is_dir() else _read_table(path)
        for path in (options.query, options.catalog)
    ]
    matches = _load(options).similar(*both, k=options.k, method=options.method)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    matches.write(options.output, overwrite=True)
    galaxies = int((matches["rank"] == 1).sum())
    print(f"{len(matches)} matches of {galaxies} galaxies in {options.output}")


def _read_table(path):
    """A table of latents from a file."""
    from astropy.table import QTable

    from astro_disentangle.quality import CutoutError

    if not Path(path).is_file():
        raise CutoutError(f"there is no file '{path}'.")
    try:
        return QTable.read(path)
    except Exception as error:  # readers of tables raise many types
        raise CutoutError(f"cannot read '{path}' as a table: {error}") from error


def _check_table(path):
    """Raise where a table of latents cannot be written to a file of that name."""
    if path.suffix not in _TABLES:
        raise ValueError(f"'--output' must end in one of {_TABLES}; got '{path}'.")


def _translate(options):
    import astropy.units as u

    cutouts = _read_files(options.files, options.band)
    model = _load(options)
    like = None if options.like is None else _read_files(options.like, None)
    views = model.translate(
        cutouts,
        survey=options.survey,
        source=options.source,
        position=_position(options),
        like=like,
        psf_fwhm=None if options.psf_fwhm is None else options.psf_fwhm * u.arcsec,
        depth=None if options.depth is None else options.depth * u.mag,
        wcs=None if options.wcs is None else _read_wcs(options.wcs),
        n_samples=options.samples,
        random_state=options.seed,
        progress=sys.stderr.isatty(),
        **_steps(options),
    )
    options.output.mkdir(parents=True, exist_ok=True)
    names = _distinct([str(view.meta["OBJECT"]) for view in views])
    for name, view in zip(names, views, strict=True):
        for path in _write_bands(view, name, options.output):
            print(path)
        if options.samples > 1:
            path = options.output / f"translated_{_safe(name)}.fits"
            view.write(path, overwrite=True)
            print(path)
        print(f"{name}: {_flag_names(view.flags)}", file=sys.stderr)


def _fit(options):
    from astro_disentangle.disentangler import Disentangler

    pairs, validation = _training_pairs(options, tuple(options.surveys))
    settings = {"recipe": options.recipe, **_training_settings(options)}
    if options.start is None:
        model = Disentangler(surveys=tuple(options.surveys), **settings)
    else:
        model = Disentangler.load(options.start).set_params(**settings)
    model.fit(pairs, validation=validation, resume=options.resume or None)
    _write_trained(model, pairs, options)


def _add_survey(options):
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.surveys import read_survey

    survey = read_survey(options.survey)
    pairs, validation = _training_pairs(options, (options.known, survey))
    model = Disentangler.load(options.start).set_params(**_training_settings(options))
    resume = options.resume or None
    model.add_survey(survey, pairs, validation=validation, resume=resume)
    _write_trained(model, pairs, options)


def _surveys_of(model, names):
    """Two surveys as the model has them described; the first two by default."""
    known = model.network_.surveys
    if missing := sorted(set(names or ()) - set(known)):
        raise ValueError(
            f"'--surveys' must be two of {sorted(known)}; got {missing[0]!r}."
        )
    return tuple(known[name] for name in names or list(known)[:2])


def _training_pairs(options, surveys):
    """Pairs to train on, and those that are held out, if any."""
    from astro_disentangle.data.pair_stream import PairStream

    if options.stream:
        pairs = PairStream(options.pairs, surveys=surveys)
    else:
        pairs = _read_pairs(options.pairs, surveys)
    return (pairs, None) if options.validation is None else _held_out(pairs, options)


def _training_settings(options):
    return {
        "n_steps": options.steps,
        "batch_size": options.batch_size,
        "n_shards": options.shards,
        "n_workers": options.workers,
        "random_state": options.seed,
        "directory": options.output,
        "device": options.device,
    }


def _write_trained(model, pairs, options):
    """Weights and history of a run, by the first of its processes."""
    from astro_disentangle.training.parallel import Ranks

    if Ranks.current().rank:
        return
    options.output.mkdir(parents=True, exist_ok=True)
    model.save(options.output / "model.safetensors")
    model.history_.write(options.output / "history.ecsv", overwrite=True)
    print(
        f"{len(pairs)} pairs, {options.steps} steps; weights and history in "
        f"{options.output}"
    )


def _held_out(pairs, options):
    """Pairs to train on, and those of another part of the sky."""
    if options.stream:
        raise ValueError("'--validation' must go without '--stream'; got both.")
    if not 0 < options.validation < 1:
        raise ValueError(
            f"'--validation' must be between 0 and 1; got {options.validation}."
        )
    shares = {"train": 1 - options.validation, "validation": options.validation}
    parts = pairs.split(shares, order=options.order)
    print(
        f"{len(parts['validation'])} of {len(pairs)} pairs are held out, "
        f"{len(parts['train'])} are for training"
    )
    return parts["train"], parts["validation"]


def _read_pairs(path, surveys):
    """Pairs from folders of FITS files, or from tables of both images."""
    from astro_disentangle.data.pair_sets import is_pair_set
    from astro_disentangle.data.pairs import PairedCutouts

    if not is_pair_set(path):
        return PairedCutouts.from_folder(path, surveys=surveys)
    return PairedCutouts.from_mmu(path, surveys=surveys, progress=sys.stderr.isatty())


def _report(options):
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.evaluation.pair_files import load_pairs
    from astro_disentangle.simulation.pairs import as_pairs, simulate_pairs

    model = Disentangler.load(options.weights, device=options.device)
    surveys, other = _surveys_of(model, options.surveys), None
    if options.pairs is not None:
        pairs = _read_pairs(options.pairs, surveys)
    elif options.test_set is not None:
        pairs = as_pairs(load_pairs(options.test_set), name="galsim")
    else:
        pairs, other = (
            simulate_pairs(
                options.simulated,
                surveys=surveys,
                random_state=options.seed,
                neighbours=neighbours,
                progress=True,
            )
            for neighbours in (0, 1)
        )
    table = model.report(
        pairs,
        labels=None if options.labels is None else _read_table(options.labels),
        other=other,
        directory=options.output,
        n_views=options.views,
        n_samples=options.samples,
        baselines=not options.no_baselines,
        random_state=options.seed,
        progress=True,
        **_steps(options),
    )
    table.pprint_all()
    print(f"scores of {len(pairs)} pairs and figures in {options.output}")


def _read_files(paths, band):
    """Cut-outs from FITS files: whole ones, or one band each, by object."""
    from astro_disentangle.data.headers import check_fits
    from astro_disentangle.quality import CutoutError

    whole, single = [], {}
    for path in map(Path, paths):
        check_fits(path)
        try:
            image = _read_image(path)
        except Exception as error:  # damaged files raise many types
            if isinstance(error, CutoutError):
                raise
            raise CutoutError(f"cannot read '{path}' as FITS: {error}") from error
        if not hasattr(image, "header"):
            whole.append(image)
            continue
        name = str(image.meta.get("BAND") or band or "").strip()
        if not name:
            raise CutoutError(
                f"'{path}' does not say its band; give --band or a BAND header."
            )
        stem = re.sub(rf"[_.-]?{re.escape(name)}$", "", path.stem) or path.parent.name
        found = str(image.meta.get("OBJECT", "")).strip() or stem
        image.meta["OBJECT"] = found.encode("ascii", "replace").decode()
        image.meta["BAND"] = name
        group = single.setdefault((path.parent, found), {})
        if name in group:
            raise CutoutError(f"two files hold band {name!r} of {found!r}: '{path}'.")
        group[name] = image
    return [*whole, *single.values()]


def _read_image(path):
    """A whole cut-out, or the first image of a file."""
    import astropy.units as u
    from astropy.io import fits
    from astropy.nddata import CCDData

    from astro_disentangle.data.cutout import SurveyCutout

    with fits.open(path) as hdus:
        first = hdus[0].header
        if first.get("NAXIS", 0) == 0 and {"SURVEY", "BANDS"} <= set(first):
            return SurveyCutout.read(path)
        images = [
            number
            for number, hdu in enumerate(hdus)
            if hdu.is_image and hdu.header.get("NAXIS", 0)
        ]
        number = images[0] if images else 0
        # Without a unit the reader assumes the survey's and flags the row.
        told = "BUNIT" in hdus[number].header
    return CCDData.read(
        path, hdu=number, unit=None if told else u.dimensionless_unscaled
    )


def _read_wcs(path):
    """WCS and size of the first image of a file that has one."""
    from astropy.io import fits
    from astropy.wcs import WCS

    from astro_disentangle.data.headers import check_fits
    from astro_disentangle.quality import CutoutError

    check_fits(path)
    with fits.open(path) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.header.get("NAXIS", 0) and "CTYPE1" in hdu.header:
                return WCS(hdu.header).celestial
    raise CutoutError(f"'{path}' has no image with a WCS for --wcs.")


def _distinct(names):
    """The names, numbered where one stands for several objects."""
    return [
        f"{name}_{names[:place].count(name) + 1}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _write_bands(view, name, folder):
    """One FITS file per band; returns their paths."""
    safe = _safe(name)
    paths = []
    for band, image in view.items():
        path = folder / f"translated_{safe}_{band}.fits"
        image.write(path, overwrite=True)
        paths.append(path)
    return paths


def _steps(options):
    """Steps of the flow, where they were asked for."""
    return {} if options.steps is None else {"n_steps": options.steps}


def _safe(name):
    """A name that can be that of a file."""
    return re.sub(r"[^\w.+-]+", "_", name)


def _position(options):
    """The position that was asked for, or None."""
    if options.sky is None:
        return options.position
    from astropy.coordinates import SkyCoord

    return SkyCoord(*options.sky, unit="deg")


def _stack(tables):
    """One table of several; ``coord`` only if all of them have it."""
    from astropy.table import vstack

    names = [n for n in tables[0].colnames if all(n in t.colnames for t in tables)]
    return vstack([table[names] for table in tables], metadata_conflicts="silent")


def _magnitude(nanojansky):
    import math

    return 31.4 - 2.5 * math.log10(nanojansky) if nanojansky > 0 else math.nan


def _flag_names(flags):
    from astro_disentangle.quality import decode_flags

    return ", ".join(decode_flags(flags)) or "-"


if __name__ == "__main__":
    sys.exit(main())

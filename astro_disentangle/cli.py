# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The command ``astro-disentangle``."""

import argparse
import sys
import time
from pathlib import Path

from astro_disentangle.commands.files import (
    check_table,
    distinct_names,
    read_files,
    read_pairs,
    read_table,
    read_wcs,
    safe_name,
    write_bands,
)
from astro_disentangle.commands.training import (
    add_survey_parser,
    fit_parser,
    fit_residual_parser,
)

__all__ = ["main"]


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
    translate.add_argument(
        "--no-residual",
        action="store_true",
        help="paint from the physics latents alone",
    )
    translate.add_argument(
        "--mosaic",
        action="store_true",
        help="the files are mosaics: translate all of each, tile by tile",
    )
    translate.add_argument(
        "--paint-large",
        action="store_true",
        help="with --mosaic: paint also what is larger than the field",
    )
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

    fit = fit_parser(commands)
    add = add_survey_parser(commands)
    more = fit_residual_parser(commands)
    report = _report_parser(commands)
    for command in (demo, transform, translate, similar, embed, fit, add, more, report):
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
            write_bands(singles[index], name, options.output)
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
    check_table(options.output)
    cutouts = read_files(options.files, options.band)
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
    check_table(options.output)
    both = [
        path if Path(path).is_dir() else read_table(path)
        for path in (options.query, options.catalog)
    ]
    matches = _load(options).similar(*both, k=options.k, method=options.method)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    matches.write(options.output, overwrite=True)
    galaxies = int((matches["rank"] == 1).sum())
    print(f"{len(matches)} matches of {galaxies} galaxies in {options.output}")


def _translate(options):
    import astropy.units as u

    cutouts = read_files(options.files, options.band)
    position = _position(options)
    model = _load(options)
    like = None if options.like is None else read_files(options.like, None)
    asked = {
        "survey": options.survey,
        "source": options.source,
        "like": like,
        "psf_fwhm": None if options.psf_fwhm is None else options.psf_fwhm * u.arcsec,
        "depth": None if options.depth is None else options.depth * u.mag,
        "wcs": None if options.wcs is None else read_wcs(options.wcs),
        "n_samples": options.samples,
        "residual": False if options.no_residual else None,
        "random_state": options.seed,
        "progress": sys.stderr.isatty(),
        **_steps(options),
    }
    tables = []
    if options.mosaic:
        if position is not None:
            raise ValueError(
                "'--mosaic' translates everything: leave out the position."
            )
        asked["paint_large"] = options.paint_large
        both = [model.translate_mosaic(mosaic, **asked) for mosaic in cutouts]
        views, tables = zip(*both, strict=True)
    else:
        views = model.translate(cutouts, position=position, **asked)
    options.output.mkdir(parents=True, exist_ok=True)
    names = distinct_names([str(view.meta["OBJECT"]) for view in views])
    for name, view in zip(names, views, strict=True):
        for path in write_bands(view, name, options.output):
            print(path)
        if options.samples > 1:
            path = options.output / f"translated_{safe_name(name)}.fits"
            view.write(path, overwrite=True)
            print(path)
        print(f"{name}: {_flag_names(view.flags)}", file=sys.stderr)
    for name, table in zip(names, tables, strict=False):
        path = options.output / f"sources_{safe_name(name)}.ecsv"
        table.write(path, overwrite=True)
        print(f"{path}: {table['painted'].sum()} of {len(table)} sources painted")


def _surveys_of(model, names):
    """Two surveys as the model has them described; the first two by default."""
    known = model.network_.surveys
    if missing := sorted(set(names or ()) - set(known)):
        raise ValueError(
            f"'--surveys' must be two of {sorted(known)}; got {missing[0]!r}."
        )
    return tuple(known[name] for name in names or list(known)[:2])


def _report(options):
    from astro_disentangle.disentangler import Disentangler
    from astro_disentangle.evaluation.pair_files import load_pairs
    from astro_disentangle.simulation.pairs import as_pairs, simulate_pairs

    model = Disentangler.load(options.weights, device=options.device)
    surveys, other = _surveys_of(model, options.surveys), None
    if options.pairs is not None:
        pairs = read_pairs(options.pairs, surveys)
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
        labels=None if options.labels is None else read_table(options.labels),
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


def _steps(options):
    """Steps of the flow, where they were asked for."""
    return {} if options.steps is None else {"n_steps": options.steps}


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

# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The one class a user needs.

Cut-outs become a `~astro_disentangle.data.batch.CutoutBatch` (pixels, mask,
noise, PSF, flags), the network's encoders turn that into latents, the flow of
its decoder turns latents into pixels, and those go back to the sky as
`~astro_disentangle.SurveyCutout`.
"""

import dataclasses
import hashlib
import itertools
import warnings
from pathlib import Path

import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from astro_disentangle.checkpoint import read_checkpoint, write_checkpoint
from astro_disentangle.data.conditions import asked_conditions, check_bands
from astro_disentangle.data.mmu import is_row
from astro_disentangle.data.read import Cutouts, read_cutouts
from astro_disentangle.data.stream import check_own_survey, each_cutout, is_one
from astro_disentangle.evaluation.properties import SIMULATED, fit_properties
from astro_disentangle.keys import seed_of
from astro_disentangle.model.conditions import (
    described_conditions,
    observed_conditions,
    typical_conditions,
)
from astro_disentangle.model.flow import STEPS
from astro_disentangle.model.network import NetworkConfig
from astro_disentangle.quality import (
    FLAGS,
    CutoutError,
    NotFittedError,
    SurveyMismatchError,
    WeightsError,
    check_count,
)
from astro_disentangle.search.catalog import LatentCatalog
from astro_disentangle.search.match import match_latents
from astro_disentangle.serving import (
    ahead,
    check_dtype,
    latents,
    neighbour_latents,
    residual_latents,
)
from astro_disentangle.surveys import SURVEYS, get_survey
from astro_disentangle.training.trainable import Trainable, short_name
from astro_disentangle.translation import noise_of_objects, paint, to_sky
from astro_disentangle.weights import hub
from astro_disentangle.weights.pack import (
    check_device,
    pack,
    unpack,
)

__all__ = ["Disentangler"]


class Disentangler(Trainable):
    """
    Separate the physics of a galaxy from the instrument that observed it.

    Parameters
    ----------
    surveys : tuple of str or `Survey`
        The two surveys.
    recipe : {"default", "counterfactual"}
        Training objective: with terms that make the two surveys agree, or the
        published flow objective alone.
    n_steps : int
        Training steps of `fit`.
    batch_size : int
        Galaxies in a training step, of all processes together.
    n_shards : int, optional
        Parts of a training step, of which each is computed by itself, with donors and
        contrast among its own galaxies, by one of the processes that ``torchrun``
        started; as many as there are processes by default. Runs with the same
        ``n_shards`` end with the same weights on any number of processes.
    n_workers : int
        Processes that read a `PairStream` ahead, for each that trains.
    learning_rate : float
        Peak learning rate.
    network : dict, optional
        Sizes that differ from those of
        `~astro_disentangle.model.network.NetworkConfig`.
    precision : {"bfloat16", "float32"}
        Precision of the matrix products in `fit`; everything else is float32.
    random_state : int, `numpy.random.Generator` or None
        Seed of `fit`; None is seed 0.
    directory : str or `~pathlib.Path`, optional
        Folder for the checkpoints of `fit`.
    progress : bool
        Show a progress bar in `fit`.
    device : str, optional
        Where the network lives; ``"cpu"`` by default.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products everywhere but in `fit`. The first is exact;
        the second takes about two thirds of the time, in batches and on processors
        that know it, and moves latents by half a percent of their spread, pixels of a
        view mostly by less than a hundredth of their noise.

    Attributes
    ----------
    history_ : `~astropy.table.QTable`
        Loss and its terms during training.
    heads_ : dict of str to `~astro_disentangle.evaluation.properties.Properties`
        What ``predict`` reads, from ``"physics"`` and from ``"instrument.SURVEY"``.
    sha256_ : str
        Digest of the weights file, once loaded or saved, else ``""``.

    Examples
    --------
    >>> from astro_disentangle import Disentangler
    >>> from astro_disentangle.samples import load_sample, sample_names
    >>> model = Disentangler.load()
    >>> name = sample_names(survey="hsc")[0]
    >>> latents = model.transform(load_sample(name), survey="hsc")
    >>> latents["physics"].shape
    (1, 128)
    """

    def __init__(
        self,
        *,
        surveys=("hsc", "legacy"),
        recipe="default",
        n_steps=2000,
        batch_size=64,
        n_shards=None,
        n_workers=0,
        learning_rate=1e-3,
        network=None,
        precision="bfloat16",
        random_state=None,
        directory=None,
        progress=True,
        device=None,
        dtype="float32",
    ):
        self.surveys = surveys
        self.recipe = recipe
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.n_shards = n_shards
        self.n_workers = n_workers
        self.learning_rate = learning_rate
        self.network = network
        self.precision = precision
        self.random_state = random_state
        self.directory = directory
        self.progress = progress
        self.device = device
        self.dtype = dtype

    # --- from cut-outs to latents ------------------------------------------

    def transform(
        self,
        cutouts,
        *,
        survey=None,
        position=None,
        donors=None,
        residual=False,
        batch_size=64,
        progress=False,
    ):
        """
        Physics and instrument latents of cut-outs.

        Parameters
        ----------
        cutouts : mapping of str to `~astropy.nddata.CCDData`, `NDData`, or iterable
            One cut-out or any number of them, all of one survey.
        survey : str or `Survey`, optional
            The survey; ``meta["SURVEY"]`` by default.
        position : `~astropy.coordinates.SkyCoord` or (x, y), optional
            Where the galaxy is; the centre of the image by default.
        donors : iterable of cut-outs or "neighbours", optional
            Other galaxies of the same survey under the same conditions, from
            which ``instrument`` is read; the cut-out itself by default. With
            ``"neighbours"`` it is read from up to 8 of the usable ``cutouts``, the
            nearest within 3 arcmin on the sky, which are never of the galaxy itself:
            none is within 1 arcsec. Where there are none it is the cut-out.
        residual : bool
            Add the residual latents: what this image resolves and ``physics``, which
            is alike in all surveys, leaves out.
        batch_size : int
            Cut-outs at a time.
        progress : bool
            Show a progress bar.

        Returns
        -------
        latents : `~astropy.table.QTable`
            Columns ``object_id``, ``survey``, ``coord`` (NaN where a cut-out has no
            WCS, left out where none has), ``physics`` (N, P) float32,
            ``instrument`` (N, I) float32 and ``flags`` (int64); unusable rows are NaN
            and flagged. With ``donors="neighbours"`` also ``n_donors`` (int64), how
            many there are; with ``residual`` also ``residual`` (N, R, 24, 24) float32.
            An array (N, P + I) after ``set_output(transform="array")``.

        Raises
        ------
        CutoutError
            If a cut-out cannot be read.
        SurveyMismatchError
            If a cut-out and its survey, or the model, do not fit together.
        NotFittedError
            If there are no weights, or no residual latents where they are asked for.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> from astro_disentangle.samples import load_sample, sample_names
        >>> model = Disentangler.load()
        >>> galaxies = [load_sample(name) for name in sample_names(survey="hsc")[:2]]
        >>> model.transform(galaxies, survey="hsc")["instrument"].shape
        (2, 24)
        """
        table = self._latents(
            cutouts,
            survey,
            position,
            donors,
            batch_size,
            progress=progress,
            residual=residual,
        )
        if getattr(self, "_output", "table") == "array":
            return np.concatenate([table["physics"], table["instrument"]], 1)
        return table

    def _latents(
        self,
        cutouts,
        survey,
        position=None,
        donors=None,
        batch_size=64,
        *,
        progress=False,
        pool=True,
        residual=False,
    ):
        """
        The table of `transform`, whatever `set_output` says.

        Without ``pool``, and with neighbours as donors, ``instrument`` are the members
        of which `neighbour_latents` makes latents.
        """
        network = self._fitted()
        check_dtype(self.dtype)
        given, neighbours = None, isinstance(donors, str)
        if neighbours and donors != "neighbours":
            raise CutoutError(
                f"'donors' must be cut-outs or 'neighbours'; got {donors!r}."
            )
        if donors is not None and not neighbours:
            given = self._conditions_like("donors", donors, survey, batch_size)
        # Of a batch only the small columns stay: there may be any number of them.
        columns = {
            name: [] for name in ("object_id", "physics", "instrument", "flags", "sky")
        } | ({"residual": []} if residual else {})
        own = None
        for read in self._read(cutouts, survey, position, batch_size, progress):
            own = read.batch.survey
            if given is not None and own != given.survey:
                raise SurveyMismatchError(
                    f"'donors' are of {given.survey.name}, the cut-outs of {own.name}."
                )
            z_physics, z_instrument = latents(
                network, read.batch, dtype=self.dtype, pool=not neighbours
            )
            if given is not None:
                z_instrument = given.z_instrument.expand(len(read.batch), -1)
            unusable = ((read.batch.flags & FLAGS.UNUSABLE) != 0)[:, None].cpu()
            columns["physics"].append(z_physics.cpu().masked_fill(unusable, torch.nan))
            columns["instrument"].append(
                z_instrument.cpu().masked_fill(unusable, torch.nan)
            )
            if residual:
                found = residual_latents(network, read.batch, dtype=self.dtype).cpu()
                empty = unusable[:, :, None, None]
                columns["residual"].append(found.masked_fill(empty, torch.nan))
            columns["object_id"] += read.object_id
            columns["flags"].append(read.batch.flags.cpu())
            columns["sky"].append(read.sky)
        table = QTable()
        table["object_id"] = columns["object_id"]
        table["survey"] = [own.name] * len(table)
        sky = np.concatenate(columns["sky"])
        if np.isfinite(sky).any():
            table["coord"] = SkyCoord(*sky.T, unit="deg")
        for name in ("object_id", "sky"):
            del columns[name]
        columns = {name: torch.cat(parts) for name, parts in columns.items()}
        if neighbours and pool:
            columns["instrument"], columns["n_donors"] = neighbour_latents(
                network, columns["instrument"], sky, dtype=self.dtype
            )
        for name, values in columns.items():
            table[name] = np.asarray(values)
        table.meta.update(self._provenance())
        return table

    # --- from latents to properties and to other galaxies ---------------------

    def predict(
        self, cutouts, *, survey=None, position=None, batch_size=64, progress=False
    ):
        """
        Properties of galaxies and observations, with uncertainties.

        Those of the packaged weights were learned from simulated galaxies, and are no
        better than these. `fit_properties` learns yours.

        Parameters
        ----------
        cutouts, survey, position, batch_size, progress
            As for `transform`.

        Returns
        -------
        table : `~astropy.table.QTable`
            ``object_id``, ``survey``, ``coord`` and ``flags`` as from `transform`; for
            each property a column of N Quantities and, as ``NAME_err``, its standard
            deviation: from ``physics`` ``redshift``, ``log_mass`` (dex(solMass)),
            ``magnitude`` (HSC i, ABmag), ``r_half`` (circularised half-light radius,
            arcsec), ``bulge_fraction``, ``e1`` and ``e2``, or those of
            `fit_properties`; from ``instrument`` ``psf_fwhm_BAND`` (arcsec) and
            ``depth_BAND`` (5 sigma point source, ABmag). Unusable rows are NaN.
            ``meta["PHYSICS"]`` and ``meta["INSTRUM"]`` say what each was learned from.

        Raises
        ------
        NotFittedError
            If there are no weights, or none for properties.
        CutoutError, SurveyMismatchError
            As `transform`.

        Warns
        -----
        UserWarning
            If the properties were learned from simulated galaxies.

        Examples
        --------
        >>> import warnings
        >>> from astro_disentangle import Disentangler
        >>> from astro_disentangle.samples import load_sample
        >>> model = Disentangler.load()
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     table = model.predict(load_sample("legacy_round"), survey="legacy")
        >>> str(table["r_half"].unit), len(table["redshift_err"])
        ('arcsec', 1)
        """
        self._fitted()
        if not self.heads_:
            raise NotFittedError(
                "this Disentangler has nothing to read properties with; call "
                "fit_properties() first."
            )
        latents = self._latents(
            cutouts, survey, position, batch_size=batch_size, progress=progress
        )
        table = latents[
            [
                n
                for n in ("object_id", "survey", "coord", "flags")
                if n in latents.colnames
            ]
        ]
        kinds = {"physics": "physics"}
        kinds["instrument"] = f"instrument.{latents['survey'][0]}"
        for column, kind in kinds.items():
            if kind not in self.heads_:
                continue
            properties = self.heads_[kind]
            read = properties.read(latents[column])
            for name in read.colnames:
                if name not in table.colnames:
                    table[name] = read[name]
            table.meta[column[:7].upper()] = properties.source
            if properties.source == SIMULATED:
                warnings.warn(
                    f"the properties read from {column!r} were learned from simulated "
                    "galaxies; fit_properties() learns them from yours.",
                    stacklevel=2,
                )
        return table

    def fit_properties(self, latents_or_cutouts, table, *, survey=None, batch_size=64):
        """
        Learn to read properties of your own from physics latents.

        Parameters
        ----------
        latents_or_cutouts : `~astropy.table.QTable` or cut-outs
            N rows from `transform`, of one survey or of several, or N cut-outs. Rows of
            one ``object_id`` and place are views of one galaxy.
        table : `~astropy.table.Table`
            N rows; each column is a property, of numbers or Quantities. What is masked
            or not finite is unknown.
        survey : str or `Survey`, optional
            Survey of cut-outs; ``meta["SURVEY"]`` by default.
        batch_size : int
            Cut-outs at a time.

        Returns
        -------
        self : `Disentangler`
            `predict` then gives these properties.

        Raises
        ------
        CutoutError
            If lengths differ, or a column does not hold numbers.
        ValueError
            If a property is known for fewer than 20 galaxies.
        NotFittedError
            If there are no weights.

        Examples
        --------
        >>> from astropy.table import QTable
        >>> from astro_disentangle import Disentangler, simulate_pairs
        >>> model = Disentangler.load()
        >>> pairs = simulate_pairs(64, random_state=3)
        >>> labels = QTable({"z": pairs.truth["redshift"]})
        >>> model = model.fit_properties(pairs.cutouts("hsc"), labels)
        >>> model.heads_["physics"].names
        ('z',)
        """
        self._fitted()
        latents = latents_or_cutouts
        latents = self._own_latents("latents", latents, survey, batch_size)
        # A name may be that of a whole field: views of one galaxy share the place too.
        names = np.asarray(latents["object_id"]).astype(str)
        if "coord" in latents.colnames:
            places = [f"{ra:.4f} {dec:.4f}" for ra, dec in _degrees(latents["coord"])]
            names = np.char.add(np.char.add(names, " "), places)
        _, group = np.unique(names, return_inverse=True)
        self.heads_["physics"] = fit_properties(
            latents["physics"],
            table,
            group,
            source="a table of the user",
            seed=seed_of(self.random_state),
        )
        return self

    def _own_latents(self, name, given, survey, batch_size):
        """A table of latents that are this model's, or those of cut-outs."""
        # A table of rows with images is one of cut-outs.
        if not isinstance(given, (Table, LatentCatalog)) or is_row(given):
            return self._latents(given, survey, batch_size=batch_size)
        missing = [n for n in ("object_id", "physics") if n not in given.colnames]
        if missing:
            raise CutoutError(
                f"{name!r} must be a table of latents from transform(), or cut-outs; "
                f"it lacks the columns {missing}."
            )
        own = self._network_digest
        if given.meta.get("NETWORK", own) != own:
            raise CutoutError(
                f"{name!r} must be latents of this model; got those of the weights "
                f"{given.meta['NETWORK'][:12]!r}. Transform the cut-outs again."
            )
        return given

    def similar(
        self, query, catalog, k=10, *, survey=None, batch_size=64, method="auto"
    ):
        """
        Galaxies of a catalogue that are like those of a query.

        The surveys of query and catalogue need not be the same: physics latents mean
        the same in both.

        Parameters
        ----------
        query, catalog : `~astropy.table.QTable`, str, `~pathlib.Path` or cut-outs
            Latents from `transform`; the folder of a catalogue of latents that
            `embed_catalog` wrote, or a `~astro_disentangle.search.LatentCatalog`; or
            cut-outs in any form, which are transformed.
        k : int
            Matches for each query.
        survey : str or `Survey`, optional
            Survey of cut-outs; ``meta["SURVEY"]`` by default.
        batch_size : int
            Cut-outs at a time.
        method : {"auto", "exact", "approximate"}
            How a catalogue on disk is searched: by a look at all rows, or at those that
            an index of FAISS chooses, which is saved in its folder ``.search``; by
            default an index from 1e6 rows. The search of a table is exact.

        Returns
        -------
        matches : `~astropy.table.QTable`
            Columns ``query`` (name), ``rank`` (from 1), ``distance`` (one minus the
            cosine of the angle between the latents), ``row`` of the catalogue, and
            ``object_id``, ``survey``, ``coord`` and ``flags`` of the match, as far as
            the catalogue has them. Unusable rows match nothing.

        Raises
        ------
        CutoutError
            If latents are not of this model, or a catalogue cannot be read.
        ImportError
            If the packages of the extra ``hats``, or ``search`` for an index, are
            needed and not there.
        NotFittedError
            If there are no weights.

        Warns
        -----
        UserWarning
            If an index is damaged or of other rows; it is built anew.

        Examples
        --------
        >>> from astro_disentangle import Disentangler, simulate_pairs
        >>> model = Disentangler.load()
        >>> pairs = simulate_pairs(16, random_state=5)
        >>> catalog = model.transform(pairs.cutouts("legacy"))
        >>> matches = model.similar(pairs.cutouts("hsc")[:2], catalog, k=3)
        >>> matches["rank"].tolist()
        [1, 2, 3, 1, 2, 3]
        """
        self._fitted()
        both = {"query": query, "catalog": catalog}
        for name, given in both.items():
            if isinstance(given, (str, Path)):
                given = LatentCatalog(given)
            both[name] = self._own_latents(name, given, survey, batch_size)
        if isinstance(both["query"], LatentCatalog):
            both["query"] = both["query"].table()
        return match_latents(**both, k=k, method=method)

    # --- from latents to another survey's pixels ----------------------------

    def translate(
        self,
        cutouts,
        *,
        survey,
        source=None,
        position=None,
        like=None,
        psf_fwhm=None,
        depth=None,
        bands=None,
        wcs=None,
        n_samples=1,
        return_samples=False,
        residual=None,
        n_steps=STEPS,
        random_state=None,
        batch_size=16,
        progress=False,
    ):
        """
        The same galaxies as another survey, or other conditions, would show them.

        Parameters
        ----------
        cutouts : mapping of str to `~astropy.nddata.CCDData`, `NDData`, or iterable
            One cut-out or any number of them, all of one survey.
        survey : str or `Survey`
            The target survey.
        source : str or `Survey`, optional
            The survey the cut-outs come from; ``meta["SURVEY"]`` by default.
        position : `~astropy.coordinates.SkyCoord` or (x, y), optional
            Where the galaxy is; the centre of the image by default.
        like : cut-out or iterable of them, optional
            Paint under the conditions of these cut-outs of the target survey.
        psf_fwhm : `~astropy.units.Quantity` or mapping of band to it, optional
            FWHM of the PSF to paint, an angle.
        depth : `~astropy.units.Quantity` or mapping of band to it, optional
            5 sigma point source depth to paint, in mag or AB mag.
        bands : sequence of str, optional
            Bands of the result; all of the target survey by default.
        wcs : `~astropy.wcs.WCS`, optional
            Resample the result to the pixels of this image, whose size is
            ``wcs.pixel_shape``; NaN and masked beyond the painted field. By default
            the target survey's own pixels, north up, the galaxy in the middle.
        n_samples : int
            1 gives one realisation with its noise, and the target's noise as
            uncertainty; more give their mean and standard deviation.
        return_samples : bool
            Give the samples themselves instead.
        residual : bool, optional
            Paint with the residual latents of the source. By default where the model
            has them, of source and target.
        n_steps : int
            Steps of the solver, one evaluation of the decoder each.
        random_state : int, `numpy.random.Generator` or None
            Seed of the noise, which is drawn for each object on its own. None is
            seed 0: the same call gives the same result.
        batch_size : int
            Cut-outs at a time.
        progress : bool
            Show a progress bar.

        Returns
        -------
        views : `SurveyCutout` or list of them
            In the pixels, unit and bands of the target, north up and east to
            the left, or those of ``wcs``, with WCS, PSF, uncertainty and provenance in
            ``meta``; or, with ``return_samples``, `~astropy.units.Quantity`
            (S, C, N, N).

        Raises
        ------
        CutoutError
            If a cut-out cannot be read, or its galaxy is not in the image of ``wcs``.
        SurveyMismatchError
            If source or target is not a survey of the model.
        ValueError
            If conditions contradict each other or are out of range.
        NotFittedError
            If there are no weights, or no residual latents where they are asked for.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> from astro_disentangle.samples import load_sample, sample_names
        >>> model = Disentangler.load()
        >>> galaxy = load_sample(sample_names(survey="hsc")[0])
        >>> view = model.translate(galaxy, survey="legacy", n_steps=2)
        >>> view["r"].shape, str(view["r"].unit)
        ((32, 32), 'nmgy')
        """
        network = self._fitted()
        check_dtype(self.dtype)
        target = self._survey(survey)
        n_samples = check_count("n_samples", n_samples)
        n_steps = check_count("n_steps", n_steps)
        chosen = check_bands(bands, target)
        conditions = self._conditions(target, like, psf_fwhm, depth, batch_size)
        seed = seed_of(random_state)
        meta = {**self._provenance(), "NSTEPS": n_steps, "SEED": seed}
        results = []
        for read in self._read(cutouts, source, position, batch_size, progress):
            samples = paint(
                network,
                read.batch,
                conditions,
                n_samples=n_samples,
                n_steps=n_steps,
                noise=noise_of_objects(seed, read.batch.keys, target),
                dtype=self.dtype,
                residual=residual,
            )
            results += [
                to_sky(
                    part,
                    read,
                    row,
                    conditions,
                    bands=chosen,
                    wcs=wcs,
                    return_samples=return_samples,
                    meta=meta,
                )
                for row, part in enumerate(samples)
            ]
        return results[0] if is_one(cutouts) else results

    def translate_mosaic(
        self,
        images,
        *,
        survey,
        source=None,
        like=None,
        psf_fwhm=None,
        depth=None,
        bands=None,
        wcs=None,
        n_samples=1,
        residual=None,
        paint_large=False,
        n_steps=STEPS,
        random_state=None,
        batch_size=16,
        progress=False,
    ):
        """
        A mosaic as another survey, or other conditions, would show it.

        Every source is found and painted in a tile of its own; tiles overlap and are
        painted from one plane of noise, so that there are no seams. What is larger
        than the field of the model is not painted but masked, unless asked for.

        Parameters
        ----------
        images : mapping of str to `~astropy.nddata.CCDData`, or `SurveyCutout`
            The mosaic, an image with WCS for each band; it is held in memory.
        survey : str or `Survey`
            The target survey.
        source : str or `Survey`, optional
            The survey of the mosaic; ``meta["SURVEY"]`` by default.
        like, psf_fwhm, depth, bands, n_samples, residual, n_steps
            As for `translate`.
        wcs : `~astropy.wcs.WCS`, optional
            Of the image to paint, whose size is ``wcs.pixel_shape``, on the target
            survey's pixels, north up. By default it covers the mosaic.
        paint_large : bool
            Paint also sources that are larger than the field, each part of them by the
            tile it is in. They keep their flag; fluxes may be off by a fifth.
        random_state : int, `numpy.random.Generator` or None
            Seed of the noise. None is seed 0. Mosaics of one projection, such as
            patches of a tract, have the same noise where they overlap.
        batch_size : int
            Tiles at a time.
        progress : bool
            Show a progress bar.

        Returns
        -------
        view : `SurveyCutout`
            Masked beyond the mosaic and where nothing could be painted.
        sources : `~astropy.table.QTable`
            What was found: ``coord``, ``x`` and ``y`` (pixels of ``view``), ``flags``,
            ``painted``, and the ``reason`` where it was not.

        Raises
        ------
        CutoutError
            If the mosaic cannot be read, has no WCS, or the pixels to paint are not
            those of the target survey.
        SurveyMismatchError
            If source or target is not a survey of the model.
        ValueError
            If conditions contradict each other or are out of range.
        NotFittedError
            If there are no weights, or no residual latents where they are asked for.

        Examples
        --------
        >>> import astropy.units as u
        >>> from astro_disentangle import Disentangler
        >>> from astro_disentangle.simulation.field import simulate_field
        >>> field = simulate_field(20 * u.arcsec, surveys=["hsc"], random_state=1)
        >>> images, model = field.mosaics["hsc"], Disentangler.load()
        >>> view, sources = model.translate_mosaic(images, survey="legacy")
        >>> view.shape, sources.colnames
        ((4, 77, 77), ['coord', 'x', 'y', 'flags', 'painted', 'reason'])
        """
        from astro_disentangle.mosaics.translate import (
            translate_mosaic,
            whole_mosaic,
        )

        network = self._fitted()
        check_dtype(self.dtype)
        target = self._survey(survey)
        n_samples = check_count("n_samples", n_samples)
        n_steps = check_count("n_steps", n_steps)
        chosen = check_bands(bands, target)
        conditions = self._conditions(target, like, psf_fwhm, depth, batch_size)
        image = whole_mosaic(images, self._described(source))
        seed = seed_of(random_state)
        meta = {**self._provenance(), "SOURCE": image.survey.name, "SEED": seed}
        return translate_mosaic(
            network,
            image,
            conditions,
            lambda tiles: self._read(tiles, None, None, batch_size, progress),
            bands=chosen,
            wcs=wcs,
            n_samples=n_samples,
            n_steps=n_steps,
            seed=seed,
            dtype=self.dtype,
            residual=residual,
            paint_large=paint_large,
            meta=meta | {"NSTEPS": n_steps, "NSAMPLES": n_samples},
        )

    def reconstruct(self, cutouts, *, survey=None, **options):
        """
        Translation of each cut-out to the survey and conditions it came from.

        Parameters
        ----------
        cutouts : mapping of str to `~astropy.nddata.CCDData`, `NDData`, or iterable
            One cut-out or any number of them, all of one survey.
        survey : str or `Survey`, optional
            The survey; ``meta["SURVEY"]`` by default.
        **options
            ``position``, ``n_samples``, ``return_samples``, ``residual``,
            ``n_steps``, ``random_state`` and ``bands`` of `translate`.

        Returns
        -------
        views : `SurveyCutout` or list of them
            As from `translate`.

        Raises
        ------
        TypeError
            If an option is not one of those named.
        CutoutError, SurveyMismatchError, NotFittedError
            As `translate`.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> from astro_disentangle.samples import load_sample, sample_names
        >>> model = Disentangler.load()
        >>> galaxy = load_sample(sample_names(survey="hsc")[0])
        >>> model.reconstruct(galaxy, survey="hsc", n_steps=2)["r"].shape
        (48, 48)
        """
        allowed = {
            "position",
            "n_samples",
            "return_samples",
            "residual",
            "n_steps",
            "random_state",
            "bands",
        }
        if unknown := sorted(set(options) - allowed):
            raise TypeError(f"reconstruct() has no option {unknown[0]!r}.")
        position = options.pop("position", None)
        options["random_state"] = seed_of(options.get("random_state"))
        views = []
        for read in self._read(cutouts, survey, position, 1, progress=False):
            own = read.batch.survey
            usable = not int(read.batch.flags[0]) & FLAGS.UNUSABLE
            views.append(
                self.translate(
                    read,
                    survey=own,
                    like=read if usable else None,
                    **options,
                )[0]
            )
        return views[0] if is_one(cutouts) else views

    # --- conditions -----------------------------------------------------------

    def _conditions(self, target, like, psf_fwhm, depth, batch_size):
        """Conditions asked for by donors, by numbers, or the typical ones."""
        if like is not None:
            if psf_fwhm is not None or depth is not None:
                raise ValueError(
                    "'like' already gives the conditions; leave out 'psf_fwhm' and "
                    "'depth'."
                )
            return self._conditions_like("like", like, target, batch_size)
        typical = typical_conditions(self.bank_, target)
        if psf_fwhm is None and depth is None:
            return typical
        usual = typical.psf_fwhm.numpy(), typical.noise.numpy()
        fwhm, noise = asked_conditions(target, psf_fwhm, depth, *usual)
        return described_conditions(self.network_, target, fwhm, noise)

    def _conditions_like(self, name, donors, survey, batch_size):
        """Conditions of the observation of a set of cut-outs."""
        if isinstance(donors, Cutouts):
            reads = [donors]
        else:
            donors = [donor for donor, _ in each_cutout(donors, None)]
            check_own_survey(name, donors, self._described(survey))
            reads = list(self._read(donors, survey, None, batch_size, progress=False))
        batches = [r.batch[(r.batch.flags & FLAGS.UNUSABLE) == 0] for r in reads]
        batches = [batch for batch in batches if len(batch)]
        if not batches:
            raise CutoutError(f"none of the cut-outs of {name!r} is usable.")
        return observed_conditions(self._fitted(), self.bank_, batches)

    def report(
        self,
        pairs,
        *,
        labels=None,
        other=None,
        directory=None,
        n_views=256,
        n_samples=16,
        n_steps=STEPS,
        baselines=True,
        random_state=None,
        progress=False,
    ):
        """
        How well the model separates galaxy and instrument, on pairs it has not seen.

        Parameters
        ----------
        pairs : `PairedCutouts`
            Pairs of two of the model's surveys, at least 16, better 1,000 and more;
            those of `simulate_pairs`, with their truth, or your own.
        labels : `~astropy.table.Table`, optional
            A row for each pair; each column of numbers is a property to be read from
            the latents. ``pairs.truth`` by default.
        other : `PairedCutouts`, optional
            The same galaxies with other neighbours, as ``neighbours=`` of
            `simulate_pairs` makes them: do galaxies find themselves, or their scene?
        directory : str or `~pathlib.Path`, optional
            Folder for the table, as ``scores.ecsv`` and ``scores.json``, and figures.
        n_views : int
            Pairs that are translated, the first ones.
        n_samples, n_steps : int
            Samples of each and steps of the solver.
        baselines : bool
            Score the network before training, aperture photometry and PSF matching
            too; twice the time.
        random_state : int, `numpy.random.Generator` or None
            Seed of the noise; None is seed 0.
        progress : bool
            Show a progress bar.

        Returns
        -------
        table : `~astropy.table.QTable`
            Columns ``group``, ``measure``, ``where`` (survey or direction), ``value``,
            ``low`` and ``high`` (68% interval of a bootstrap over galaxies), ``n``,
            ``untrained``, ``classical`` and ``aim``. NaN is not known.

        Raises
        ------
        SurveyMismatchError
            If the pairs are of other surveys.
        CutoutError
            If fewer than 16 pairs are usable, or labels are not one for each.
        NotFittedError
            If there are no weights.

        Examples
        --------
        >>> from astro_disentangle import Disentangler, simulate_pairs
        >>> model = Disentangler.load()
        >>> pairs = simulate_pairs(48, random_state=1)
        >>> table = model.report(pairs, n_views=8, n_samples=4, n_steps=1,
        ...                      baselines=False)
        >>> sorted(set(table["group"].tolist()))[:3]
        ['alignment', 'calibration', 'control']
        """
        from astro_disentangle.evaluation.report import write_report
        from astro_disentangle.evaluation.scoreboard import scoreboard

        network = self._fitted()
        given = {"pairs": pairs, "other": pairs if other is None else other}
        for name, part in given.items():
            unknown = set(part.surveys) - set(network.surveys)
            if unknown or set(part.surveys) != set(pairs.surveys):
                known = network.surveys if name == "pairs" else pairs.surveys
                raise SurveyMismatchError(
                    f"{name!r} must be of two of {sorted(known)}; got "
                    f"{sorted(part.surveys)}."
                )
            if len(part) != len(pairs):
                raise CutoutError(
                    f"{name!r} must have as many galaxies as 'pairs', {len(pairs)}; "
                    f"got {len(part)}."
                )
        if labels is not None:
            pairs = pairs.labelled(labels)
        settings = {
            "other": other,
            "n_views": check_count("n_views", n_views),
            "n_samples": check_count("n_samples", n_samples),
            "n_steps": check_count("n_steps", n_steps),
            "seed": seed_of(random_state),
            "baselines": baselines,
            "progress": progress,
        }
        if directory is None:
            return scoreboard(network, pairs, **settings)
        return write_report(network, pairs, directory, **settings)

    def _set_fitted(self, network, bank, history, sha256, heads=None):
        self.network_ = network.eval()
        self.bank_ = bank
        self.history_ = QTable(rows=history) if history else QTable()
        self.sha256_ = sha256
        state = sorted(self.network_.state_dict().items())
        digest = hashlib.sha256()
        for name, tensor in state:
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        self._network_digest = digest.hexdigest()
        self.heads_ = dict(heads or {})
        self.n_features_in_ = network.config.physics_size

    # --- weights ------------------------------------------------------------------

    def save(self, path, *, dtype="float32"):
        """
        Write the weights and all that is needed to use them to one file.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            Destination, by habit ``*.safetensors``; a folder, or a name that ends in
            ``/``, for a repository with card and SHA-256; ``hf://OWNER/NAME`` to
            publish one on the Hugging Face Hub.
        dtype : {"float32", "float16"}
            Precision of the numbers in the file.

        Returns
        -------
        sha256 : str
            Digest of the file.

        Raises
        ------
        NotFittedError
            If there are no weights.
        WeightsError
            If the file cannot be written, or the hub refuses it.
        ImportError
            If the hub is meant and ``huggingface_hub`` not installed.
        ValueError
            If ``dtype`` is neither of the two.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from astro_disentangle import Disentangler
        >>> path = Path(tempfile.mkdtemp()) / "mine.safetensors"
        >>> digest = Disentangler.load().save(path)
        >>> Disentangler.load(path).sha256_ == digest
        True
        """
        network = self._fitted()
        if dtype not in ("float32", "float16"):
            raise ValueError(f"'dtype' must be 'float32' or 'float16'; got {dtype!r}.")
        history = [dict(zip(row.colnames, row, strict=True)) for row in self.history_]
        tensors, config = pack(
            network, self.bank_, self.recipe, history, dtype, self.heads_
        )
        digest = _write(path, tensors, config)
        if dtype == "float32":
            # Rounded weights are those of the file, not of this model.
            self.sha256_ = digest
        return digest

    @classmethod
    def load(cls, name_or_path="default", *, device=None, dtype=None):
        """
        A model from packaged or saved weights; from the network for an address alone.

        Parameters
        ----------
        name_or_path : str or `~pathlib.Path`
            ``"default"`` for the packaged HSC and Legacy weights; a file, or a folder
            that `save` made; ``hf://OWNER/NAME``, with ``@REVISION`` and ``/FILE`` if
            need be, on the Hugging Face Hub; or a URL, to which ``#sha256=`` and the
            digest of the file may be added. What was fetched is kept in the cache of
            ``huggingface_hub`` or astropy.
        device : str, optional
            Where the network lives; ``"cpu"`` by default.
        dtype : {"float32", "bfloat16"}, optional
            Precision of the matrix products; float32 by default.

        Returns
        -------
        model : `Disentangler`
            Ready to use.

        Raises
        ------
        WeightsError
            If the file is missing, damaged, or not of this package, cannot be fetched,
            or its digest is not the one told.
        ImportError
            If the hub is meant and ``huggingface_hub`` not installed.
        ValueError
            If ``dtype`` is another one.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> Disentangler.load().surveys
        ('hsc', 'legacy')
        """
        dtype = check_dtype("float32" if dtype is None else dtype)
        (network, bank, recipe, history, heads), digest = _read_weights(name_or_path)
        default = NetworkConfig()
        changed = {
            field: value
            for field, value in vars(network.config).items()
            if value != getattr(default, field)
        }
        model = cls(
            surveys=tuple(short_name(survey) for survey in network.surveys.values()),
            recipe=recipe,
            network=changed or None,
            device=device,
            dtype=dtype,
        )
        network = network.to(check_device(device))
        model._set_fitted(network, bank, history, digest, heads)
        model.loaded_ = True
        return model

    # --- small helpers ------------------------------------------------------------

    def _fitted(self):
        if not hasattr(self, "network_"):
            raise NotFittedError(
                "this Disentangler has no weights; call fit() or use "
                "Disentangler.load()."
            )
        return self.network_

    def _described(self, survey):
        """A survey that the weights alone describe in place of its name."""
        if isinstance(survey, str) and survey not in SURVEYS:
            return self._fitted().surveys.get(survey, survey)
        return survey

    def _survey(self, survey):
        """The model's own description of a survey, by name or description."""
        network = self._fitted()
        asked = get_survey(self._described(survey))
        own = network.surveys.get(asked.name)
        if own is None or not own.has_images_of(asked):
            raise SurveyMismatchError(
                f"the model knows the surveys {sorted(network.surveys)}; got "
                f"{asked.name!r}. add_survey() makes it know another one."
            )
        return own

    def _read(self, cutouts, survey, position, batch_size, progress):
        """Batches of cut-outs that the model can read, all of one survey."""
        from tqdm import tqdm

        batch_size = check_count("batch_size", batch_size)
        survey = self._described(survey)
        if isinstance(cutouts, Cutouts):
            reads = _in_batches(cutouts, survey, position, batch_size)
        else:
            pairs = each_cutout(cutouts, position)
            chunks = iter(lambda: list(itertools.islice(pairs, batch_size)), [])
            reads = ahead(lambda chunk: _read_chunk(chunk, survey), chunks)
        total = len(cutouts) if hasattr(cutouts, "__len__") else None
        total = 1 if is_one(cutouts) else total
        first = None
        with tqdm(total=total, disable=not progress, unit="galaxy") as bar:
            for read in reads:
                first = first or self._survey(read.batch.survey)
                if not read.batch.survey.has_images_of(first):
                    raise SurveyMismatchError(
                        "all cut-outs of one call must be of one survey; got "
                        f"{first.name} and {read.batch.survey.name}."
                    )
                # What is usual in a survey is what it was when the model learned.
                batch = dataclasses.replace(read.batch, survey=first)
                yield dataclasses.replace(read, batch=batch)
                bar.update(len(read))
        if first is None:
            raise CutoutError("'cutouts' must hold at least one cut-out; got none.")

    def _provenance(self):
        from astro_disentangle import __version__

        return {
            "MODEL": f"astro_disentangle {'-'.join(self.network_.surveys)}",
            "MODELVER": __version__,
            "SHA256": self.sha256_,
            "NETWORK": self._network_digest,
            "DTYPE": self.dtype,
        }


def _write(path, tensors, config):
    """Write weights to a file, a folder or the hub; their digest."""
    if str(path).startswith("hf://"):
        keep = hub.upload
    elif str(path).endswith("/") or Path(path).is_dir():
        keep = hub.write_repository
    elif hub.is_address(path):
        raise WeightsError(
            f"weights are written to a file, a folder or 'hf://OWNER/NAME'; got "
            f"'{path}'."
        )
    else:
        return write_checkpoint(path, tensors, config)
    digests = []
    keep(
        path,
        lambda file: digests.append(write_checkpoint(file, tensors, config)),
        hub.repository_card(config, tensors),
    )
    return digests[0]


def _read_weights(name):
    """What is in a file of weights, wherever it is, and its digest."""
    path = hub.local_file(name)
    try:
        tensors, config, digest = read_checkpoint(path)
        return unpack(path, tensors, config), digest
    except WeightsError as error:
        if not hub.is_address(name):
            raise
        # In a cache a file has no name that says anything.
        hub.forget(name)
        raise WeightsError(f"what is at '{name}' cannot be used: {error}") from error


def _degrees(coord):
    """Right ascension and declination, (N, 2)."""
    sky = coord.icrs
    return np.stack([sky.ra.deg, sky.dec.deg], 1)


def _in_batches(cutouts, survey, position, batch_size):
    """Cut-outs that have been read, so many at a time."""
    own = cutouts.batch.survey.name
    if survey is not None and get_survey(survey).name != own:
        raise SurveyMismatchError(
            f"the cut-outs have been read as those of {own}; got "
            f"{get_survey(survey).name!r}."
        )
    if position is not None:
        raise CutoutError("'position' is known of cut-outs that have been read.")
    for start in range(0, len(cutouts), batch_size):
        yield cutouts[start : start + batch_size]


def _read_chunk(chunk, survey):
    """Some cut-outs with their positions as one batch."""
    images, places = zip(*chunk, strict=True)
    return read_cutouts(list(images), survey=survey, position=list(places))

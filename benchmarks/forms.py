# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Every form of a cut-out on real images: does it give what the plain form gives?

``python benchmarks/forms.py DIR`` takes a folder of folders, each with one FITS file
per band and a catalogue of its sources, and prints a table of forms and checks.
"""

import argparse
import copy
import tempfile
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, NDData
from astropy.table import Table
from photutils.aperture import CircularAperture, aperture_photometry

from astro_disentangle import Disentangler, SurveyCutout
from astro_disentangle.data.aion import to_aion

IMAGES = {
    "hsc_lsb_galaxy": "hsc",
    "hsc_cosmos_group": "hsc",
    "hsc_field": "hsc",
    "hsc_field_with_variance": "hsc",
    "legacy_decals_galaxy": "legacy",
    "legacy_bass_field": "legacy",
    "legacy_viewer_resampled_a": "legacy",
    "des_spiral": "legacy",
}
OTHER = {"hsc": "legacy", "legacy": "hsc"}
UNITS = ("nJy", "uJy", "nmgy", "mgy", "adu")


def plain(folder, survey):
    """The bands of a folder, and a pixel of a galaxy that is 80 px off the edge."""
    bands = {p.stem: CCDData.read(p) for p in sorted(folder.glob("*.fits"))}
    for image in bands.values():
        image.meta["SURVEY"] = survey
    table = Table.read(folder / "catalog.ecsv")
    table.sort("mag")
    ny, nx = next(iter(bands.values())).shape
    margin = min(80, min(nx, ny) // 2 - 1)
    inside = [
        (x, y)
        for x, y in zip(table["x"], table["y"], strict=True)
        if margin <= x < nx - margin and margin <= y < ny - margin
    ]
    x, y = inside[0] if inside else (nx / 2, ny / 2)
    # The Multimodal Universe has its objects between two pixels.
    return bands, (round(x) - 0.5, round(y) - 0.5)


def cube(bands, position, _):
    """An NDData cube."""
    first = next(iter(bands.values()))
    parts = {}
    if all(image.uncertainty is not None for image in bands.values()):
        arrays = [image.uncertainty.array for image in bands.values()]
        parts["uncertainty"] = type(first.uncertainty)(np.stack(arrays))
    if all(image.mask is not None for image in bands.values()):
        parts["mask"] = np.stack([image.mask for image in bands.values()])
    if all(image.psf is not None for image in bands.values()):
        parts["psf"] = np.stack([image.psf for image in bands.values()])
    meta = {**first.meta, "bands": list(bands)}
    meta.pop("BAND", None)
    return NDData(
        np.stack([image.data for image in bands.values()]),
        unit=first.unit,
        wcs=first.wcs,
        meta=meta,
        **parts,
    ), position


def survey_cutout(bands, position, _):
    """A SurveyCutout of the whole image."""
    whole, _ = cube(bands, position, None)
    options = {n: getattr(whole, n) for n in ("uncertainty", "mask", "wcs", "psf")}
    return SurveyCutout(
        whole.data, bands=list(bands), unit=whole.unit, meta=whole.meta, **options
    ), position


def own_file(bands, position, folder):
    """A SurveyCutout that was written and read."""
    view, _ = survey_cutout(bands, position, folder)
    view.write(folder / "own.fits")
    return SurveyCutout.read(folder / "own.fits"), position


def from_image(bands, position, _):
    """Cut from the image as a mosaic, with sky around it to measure the noise."""
    return SurveyCutout.from_image(bands, position, size=160), None


def big_endian(bands, position, _):
    """Arrays as FITS files hold them."""
    out = {}
    for band, image in bands.items():
        out[band] = copy.copy(image)
        out[band].data = image.data.astype(image.data.dtype.newbyteorder(">"))
    return out, position


def files(suffix):
    """Reading of compressed files by astropy."""

    def form(bands, position, folder):
        out = {}
        for band, image in bands.items():
            path = folder / f"{band}{suffix}"
            if suffix.endswith("fz"):
                header = image.to_hdu()[0].header
                hdu = fits.CompImageHDU(
                    image.data, header, compression_type="GZIP_2", quantize_level=0
                )
                hdu.writeto(path)
                out[band] = CCDData.read(path, hdu=1)
                out[band].uncertainty, out[band].mask = image.uncertainty, image.mask
            else:
                image.write(path)
                out[band] = CCDData.read(path)
            out[band].psf = image.psf
        return out, position

    form.__doc__ = f"CCDData read from {suffix} files."
    return form


def memory_mapped(bands, position, folder):
    """Arrays that stay on disk."""
    out = {}
    for band, image in bands.items():
        path = folder / f"map_{band}.fits"
        fits.writeto(path, image.data)
        out[band] = copy.copy(image)
        out[band].data = fits.open(path, memmap=True)[0].data
    return out, position


def mmu(bands, position, _):
    """A row of the Multimodal Universe, without what its schema cannot say."""
    camera = {"hsc": "hsc", "legacy": "des"}
    survey = next(iter(bands.values())).meta["SURVEY"]
    x, y = (round(v - 78.5) for v in position)
    window = (slice(y, y + 160), slice(x, x + 160))
    image = {"band": [], "flux": [], "mask": [], "scale": [], "psf_fwhm": []}
    ivar = []
    for band, data in bands.items():
        unit = {"hsc": 27.0, "legacy": 22.5}[survey]
        zero_point = data.meta["MAGZERO"]
        scale = 10 ** (-0.4 * (zero_point - unit))
        image["band"].append(f"{camera[survey]}-{band}")
        image["flux"].append(data.data[window] * scale)
        good = np.isfinite(data.data[window])
        if data.mask is not None:
            good &= ~data.mask[window]
        image["mask"].append(good)
        image["scale"].append(data.meta["PIXSCALE"])
        image["psf_fwhm"].append(0.0)
        if data.uncertainty is not None:
            power = {"std": -2, "var": -1, "ivar": 1}[data.uncertainty.uncertainty_type]
            with np.errstate(all="ignore"):
                weight = data.uncertainty.array[window].astype(float) ** power
            ivar.append(np.where(np.isfinite(weight), weight, 0) * scale**-2)
    if len(ivar) == len(bands):
        image["ivar"] = ivar
    return {"image": image, "object_id": "b'1'"}, None


def aion(bands, position, _):
    """An image object of AION-1: fluxes and bands alone."""
    return to_aion(bands), position


FORMS = {
    "NDData cube": cube,
    "SurveyCutout": survey_cutout,
    "SurveyCutout file": own_file,
    "from_image": from_image,
    "big-endian": big_endian,
    ".fits.gz": files(".fits.gz"),
    ".fits.fz": files(".fits.fz"),
    "memory-mapped": memory_mapped,
    "MMU row": mmu,
    "AION-1": aion,
}


def stripped(bands, position, form):
    """The plain form without what another form cannot hold."""
    if form not in ("MMU row", "AION-1"):
        return bands, position
    out = {}
    for band, image in bands.items():
        meta = {name: image.meta[name] for name in ("SURVEY", "MAGZERO")}
        options = {"unit": image.unit, "meta": meta}
        if form == "AION-1":
            bad = ~np.isfinite(image.data)
            if image.mask is not None:
                bad |= image.mask
            out[band] = CCDData(np.where(bad, 0, image.data), **options)
            continue
        x, y = (round(v - 78.5) for v in position)
        window = (slice(y, y + 160), slice(x, x + 160))
        meta["PIXSCALE"] = image.meta["PIXSCALE"]
        if image.uncertainty is not None:
            kind = type(image.uncertainty)
            options["uncertainty"] = kind(image.uncertainty.array[window])
        if image.mask is not None:
            options["mask"] = image.mask[window]
        out[band] = CCDData(image.data[window], **options)
    return out, position if form == "AION-1" else (78.5, 78.5)


def digest(cutout):
    """Bytes by which a change of a form can be told."""
    images = cutout.values() if isinstance(cutout, dict) else [cutout]
    parts = []
    for image in images:
        for name in ("data", "mask"):
            parts.append(np.asarray(getattr(image, name, None)).tobytes())
        parts.append(repr(getattr(image, "meta", None)))
    return parts


def same_latents(a, b, spread):
    """Largest difference of latents in units of their spread."""
    return max(
        float(np.abs(a[name] - b[name]).max() / spread[name])
        for name in ("physics", "instrument")
    )


def check(model, bands, position, form, spread, folder):
    """One row of the table: checks of a form on one image."""
    survey = next(iter(bands.values())).meta["SURVEY"]
    base, where = stripped(bands, position, form)
    expected = model.transform(base, position=where)
    try:
        cutout, place = FORMS[form](bands, position, folder)
    except ValueError as error:
        return {"made": str(error)[:60]}
    before = digest(cutout)
    found = model.transform(cutout, position=place)
    view = model.translate(cutout, survey=OTHER[survey], position=place, n_steps=2)
    view = view[0] if isinstance(view, list) else view
    apart = same_latents(found, expected, spread)
    result = {"latents": f"{apart:.0e}" if apart <= 1e-5 else f"{apart:.0e} FAIL"}
    result["flags"] = int(found["flags"][0]) == int(expected["flags"][0])
    result["unchanged"] = digest(cutout) == before
    result["place"] = True
    if "coord" in found.colnames and "coord" in expected.colnames:
        apart = found["coord"][0].separation(expected["coord"][0])
        result["place"] = bool(apart < 0.1 * view.survey.pixel_scale * u.arcsec)
        x, y = view.wcs.world_to_pixel(expected["coord"][0])
        middle = (view.shape[-1] - 1) / 2
        result["place"] &= bool(np.hypot(x - middle, y - middle) < 0.1)
    image = view["r"]
    aperture = CircularAperture(((image.shape[0] - 1) / 2,) * 2, 4)
    total = aperture_photometry(image, aperture)["aperture_sum"][0]
    result["photutils"] = bool(np.isfinite(total.value))
    image.write(folder / "view.fits", overwrite=True)
    again = CCDData.read(folder / "view.fits")
    fits.open(folder / "view.fits").verify("exception")
    result["file"] = np.array_equal(again.data, image.data) and again.unit == image.unit
    return result


def check_units(model, bands, position, spread):
    """The same latents from every unit of flux."""
    survey = next(iter(bands.values())).meta["SURVEY"]
    expected = model.transform(bands, position=position)
    results = {}
    for unit in UNITS:
        out = {}
        for band, image in bands.items():
            njy = 10 ** (-0.4 * (image.meta["MAGZERO"] - 31.4))
            scale = {
                "nJy": njy,
                "uJy": njy * 1e-3,
                "nmgy": njy / 3630.7805,
                "mgy": njy / 3630.7805e9,
                "adu": 17.0,
            }[unit]
            meta = {**image.meta, "SURVEY": survey}
            meta["MAGZERO"] = image.meta["MAGZERO"] + 2.5 * np.log10(17.0)
            if unit != "adu":
                del meta["MAGZERO"]
            error = image.uncertainty
            if error is not None:
                power = {"std": 1, "var": 2, "ivar": -2}[error.uncertainty_type]
                error = type(error)(error.array * scale**power)
            out[band] = CCDData(
                image.data * scale,
                unit=unit,
                uncertainty=error,
                mask=image.mask,
                wcs=image.wcs,
                psf=image.psf,
                meta=meta,
            )
        found = model.transform(out, position=position)
        results[unit] = same_latents(found, expected, spread)
    return results


def main():
    """Command line of the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = Disentangler.load()
    images = {
        name: plain(options.folder / name, survey) for name, survey in IMAGES.items()
    }
    spread = {}
    for kind in ("physics", "instrument"):
        rows = [model.transform(b, position=p)[kind][0] for b, p in images.values()]
        spread[kind] = np.std(rows, 0).mean()
    rows = []
    for form in FORMS:
        for name, (bands, position) in images.items():
            with tempfile.TemporaryDirectory() as folder:
                shape = next(iter(bands.values())).shape
                if form in ("MMU row", "from_image") and min(shape) < 160:
                    continue
                result = check(model, bands, position, form, spread, Path(folder))
            shown = {k: v if isinstance(v, str) else "ok" for k, v in result.items()}
            shown |= {k: "FAIL" for k, v in result.items() if v is False}
            rows.append({"form": form, "image": name, **shown})
    names = ["form", "image", "latents", "flags", "unchanged", "place"]
    names += ["photutils", "file"]
    Table(rows=[[row.get(n, "-") for n in names] for row in rows], names=names).pprint(
        max_lines=-1, max_width=-1, align="<"
    )
    print("\nlargest difference of latents by unit, in their spread")
    rows = []
    for name, (bands, position) in images.items():
        found = check_units(model, bands, position, spread)
        rows.append([name, *(f"{value:.0e}" for value in found.values())])
    Table(rows=rows, names=["image", *UNITS]).pprint(
        max_lines=-1, max_width=-1, align="<"
    )


if __name__ == "__main__":
    main()

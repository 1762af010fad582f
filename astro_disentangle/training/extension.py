# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""A further survey for a network that is trained already.

What belongs to one survey is a layer per survey: first convolutions, readings of the
observation, patches, the layers that paint. A new survey brings layers of its own;
everything else is frozen (as scArches does for single cells, doi:10.1038/
s41587-021-01001-7), so that no latent and no view of another survey changes by a bit.

The layers begin as those of the survey whose noise is most like that of the new one,
as if images had been interpolated in wavelength to its bands: with :math:`x` the new
survey's bands and :math:`M` the interpolation, a layer that reads :math:`x` begins as
:math:`W M`, and one that paints as :math:`M' W`, where :math:`M'` goes the other way.
A network that has never seen the survey then already sees and paints galaxies; a few
hundred pairs are enough to learn what is different.
"""

import numpy as np
import torch
from torch.nn import functional

from astro_disentangle.model.network import Network
from astro_disentangle.quality import SurveyMismatchError
from astro_disentangle.simulation.tables import filter_columns, load_tables

__all__ = ["band_mixing", "extended", "nearest_survey"]


def extended(network, survey):
    """
    A copy of a network that knows one more survey.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The trained network.
    survey : `~astro_disentangle.Survey`
        The new survey.

    Returns
    -------
    network : `~astro_disentangle.model.network.Network`
        What the given one had is the same, to the bit, and asks for no gradient. What
        belongs to the new survey does, and begins as said above.

    Raises
    ------
    SurveyMismatchError
        If the network knows a survey of this name.
    ValueError
        If the survey's stamps are not such as the decoder can paint.

    Examples
    --------
    >>> from astro_disentangle import Disentangler, get_survey
    >>> from astro_disentangle.training.extension import extended
    >>> network = extended(Disentangler.load().network_, get_survey("kids"))
    >>> list(network.surveys)
    ['hsc', 'legacy', 'kids']
    """
    if survey.name in network.surveys:
        raise SurveyMismatchError(
            f"'survey' must be one that the model does not know; it knows "
            f"{sorted(network.surveys)}; got {survey.name!r}."
        )
    known = network.state_dict()
    with torch.random.fork_rng(devices=[]):
        surveys = (*network.surveys.values(), survey)
        more = Network(surveys, network.config, network.residual_surveys)
    more.load_state_dict(known, strict=False)
    for name, parameter in more.named_parameters():
        parameter.requires_grad_(name not in known)
    near = nearest_survey(network, survey)
    with torch.no_grad():
        _begin_encoder(more.physics, survey, near)
        _begin_encoder(more.instrument, survey, near)
        _begin_instrument(more, survey, near)
        _begin_decoder(more.decoder, survey, near)
        more.physics.centre(survey.name).copy_(more.physics.centre(near.name))
    return more.to(next(network.parameters()).device).train(network.training)


def nearest_survey(network, survey):
    """
    The survey of a network that is nearly as deep as another one.

    Pixels are seen in units of their noise, so that a galaxy looks most like itself in
    the survey whose noise is most like that of the new one.

    Parameters
    ----------
    network : `~astro_disentangle.model.network.Network`
        The network.
    survey : `~astro_disentangle.Survey`
        The other survey.

    Returns
    -------
    near : `~astro_disentangle.Survey`
        That with the smallest mean difference of the logarithms of the noise on one
        square arcsec, its bands interpolated to those of the other.

    Examples
    --------
    >>> from astro_disentangle import Disentangler, get_survey
    >>> from astro_disentangle.training.extension import nearest_survey
    >>> nearest_survey(Disentangler.load().network_, get_survey("des")).name
    'legacy'
    """

    def noise(one):
        return np.log(np.asarray(one.pixel_noise()) / one.pixel_scale)

    def distance(known):
        mixing = band_mixing(known, survey).numpy()
        return np.abs(mixing @ noise(known) - noise(survey)).mean()

    return min(network.surveys.values(), key=distance)


def band_mixing(survey, wanted):
    """
    How the bands of one survey are interpolated to those of another.

    Parameters
    ----------
    survey, wanted : `~astro_disentangle.Survey`
        Surveys of C and D bands.

    Returns
    -------
    mixing : `torch.Tensor`
        Shape (D, C), float32: linear in the logarithm of the wavelength of the filters,
        the outermost band beyond; rows have the sum 1. Where a filter is not known, the
        bands of both, which go from blue to red, are spread evenly.

    Examples
    --------
    >>> from astro_disentangle import get_survey
    >>> from astro_disentangle.training.extension import band_mixing
    >>> mixing = band_mixing(get_survey("des"), get_survey("legacy-north"))
    >>> mixing.round(decimals=1).tolist()[0]
    [1.0, 0.0, 0.0, 0.0, 0.0]
    """
    places = []
    for one in (survey, wanted):
        try:
            wavelength = load_tables()["wavelength"][filter_columns(one)]
        except SurveyMismatchError:
            places = [np.linspace(0, 1, len(s.bands)) for s in (survey, wanted)]
            break
        places.append(np.log(np.asarray(wavelength, float)))
    have, want = places
    order = np.argsort(have)
    unit = np.eye(len(have))[order]
    columns = [np.interp(want, have[order], column) for column in unit.T]
    return torch.tensor(np.stack(columns, 1), dtype=torch.float32)


def _begin_encoder(encoder, survey, near):
    """The layers of an encoder that read the new survey."""
    mixing = band_mixing(survey, near)
    name, like, stem = survey.name, near.name, encoder.stem
    images = _of_images(mixing)
    weight = torch.einsum("orij,rn->onij", stem.pixels[like].weight, images)
    stem.pixels[name].weight.copy_(weight)
    stem.pixels[name].bias.copy_(stem.pixels[like].bias)
    for layers in (stem.observation, stem.numbers):
        _begin_reading(layers[name][0], layers[like][0], mixing)
        layers[name][2].load_state_dict(layers[like][2].state_dict())


def _of_images(mixing):
    """What `View.images` of mixed bands are of those of the bands themselves."""
    wanted, count = mixing.shape
    share = mixing.mean(0)
    images = mixing.new_zeros(2 * wanted + 1, 2 * count + 1)
    # Twice the mean, and four times the differences from it.
    images[0, 0] = 1
    images[0, 1 : count + 1] = share / 2
    images[1 : wanted + 1, 1 : count + 1] = mixing - share
    images[wanted + 1 :, count + 1 :] = mixing
    return images


def _begin_reading(layer, like, mixing):
    """A layer that reads blocks of a number for each band."""
    blocks = like.weight.unflatten(1, (-1, len(mixing)))
    layer.weight.copy_((blocks @ mixing).flatten(1))
    layer.bias.copy_(like.bias)


def _begin_telling(layer, like, mixing):
    """A layer that tells blocks of a number for each band."""
    for name in ("weight", "bias"):
        blocks = getattr(like, name).unflatten(0, (-1, mixing.shape[1]))
        mixed = torch.einsum("dc,kc...->kd...", mixing, blocks)
        getattr(layer, name).copy_(mixed.flatten(0, 1))


def _begin_instrument(network, survey, near):
    """What is told of the new survey's conditions and measurements."""
    mixing, name, like = band_mixing(near, survey), survey.name, near.name
    reading = network.instrument.reading
    _begin_telling(reading[name], reading[like], mixing)
    photometry, known = network.photometry[name], network.photometry[like]
    _begin_telling(photometry.physics, known.physics, mixing)
    _begin_telling(photometry.instrument, known.instrument, mixing)
    # A variance of each band, and behind them those common to the bands.
    for part in ("weight", "bias"):
        new, old = (getattr(p.log_variance, part) for p in (photometry, known))
        kinds = len(old) // (known.n_bands + 1)
        blocks = old[:-kinds].unflatten(0, (kinds, known.n_bands))
        mixed = torch.einsum("dc,kc...->kd...", mixing, blocks).flatten(0, 1)
        new.copy_(torch.cat([mixed, old[-kinds:]]))


def _begin_decoder(decoder, survey, near):
    """The layers of the decoder that read from and paint the new survey."""
    name, like = survey.name, near.name
    there, back = band_mixing(survey, near), band_mixing(near, survey)
    _begin_reading(decoder.source[name], decoder.source[like], there)
    decoder.target[name].copy_(decoder.target[like])
    side, old = survey.patch_size, near.patch_size
    new, known = decoder.patch[name], decoder.patch[like]
    weight = torch.einsum("wcij,cn->wnij", known.weight, there)
    # Noise of independent pixels keeps its variance.
    new.weight.copy_(_resized(weight, side) * (old / side))
    new.bias.copy_(known.bias)
    layers = [(decoder.paint, 1)]
    if decoder.outline:
        layers.append((decoder.outline, 2))
        decoder.rule(name).copy_(decoder.rule(like))
    for layer, kinds in layers:
        for part in ("weight", "bias"):
            known = getattr(layer[like], part)
            patches = known.reshape(kinds, len(near.bands), old, old, -1)
            patches = torch.einsum("dc,kcijw->kwdij", back, patches)
            patches = _resized(patches.flatten(0, 1), side)
            patches = patches.unflatten(0, (kinds, -1)).permute(0, 2, 3, 4, 1)
            new = getattr(layer[name], part)
            new.copy_(patches.reshape(new.shape))


def _resized(patches, size):
    """Patches (B, C, i, j) with another number of pixels on a side."""
    if patches.shape[-1] == size:
        return patches
    return functional.interpolate(
        patches, size=(size, size), mode="bilinear", align_corners=False
    )

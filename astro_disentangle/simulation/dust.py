# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
r"""Dust within galaxies: the attenuation curve of starbursts.

Calzetti et al. (2000), equations 2 to 4, with :math:`\lambda` in micrometres:

.. math::
   k(\lambda) = 2.659\,(-1.857 + 1.040/\lambda) + 4.05
   \quad (0.63 \le \lambda),

   k(\lambda) = 2.659\,(-2.156 + 1.509/\lambda - 0.198/\lambda^2
                + 0.011/\lambda^3) + 4.05 \quad (\lambda < 0.63).
"""

__all__ = ["attenuation"]


def attenuation(wavelength):
    r"""
    Attenuation A / E(B-V) at wavelengths in the rest frame of a galaxy.

    Parameters
    ----------
    wavelength : `torch.Tensor` or `numpy.ndarray`
        Angstrom; values below 1200 count as 1200.

    Returns
    -------
    attenuation : `torch.Tensor` or `numpy.ndarray`
        Of the same shape, mag for a reddening of 1 mag, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_disentangle.simulation.dust import attenuation
    >>> blue, visual = attenuation(np.array([4400.0, 5500.0]))
    >>> print(f"{blue - visual:.2f}")
    1.01
    """
    x = 1e4 / wavelength.clip(1200.0)
    red = 2.659 * (1.040 * x - 1.857) + 4.05
    blue = 2.659 * (x * (x * (0.011 * x - 0.198) + 1.509) - 2.156) + 4.05
    short = x > 1 / 0.63
    return (short * blue + ~short * red).clip(0.0)

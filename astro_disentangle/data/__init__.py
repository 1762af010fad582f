# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""From the sky to tensors and back."""

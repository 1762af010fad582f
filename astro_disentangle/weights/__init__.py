# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The packaged weights and the script that makes them."""

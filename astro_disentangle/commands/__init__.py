# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""What the command line does, and the files that it reads and writes."""

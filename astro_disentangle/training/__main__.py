# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""Training in several processes, which ``torchrun`` starts.

``torchrun --nproc-per-node N -m astro_disentangle.training`` takes the options of
``astro-disentangle fit``. All processes train one network; the first one writes.
"""

import sys

from astro_disentangle.training.parallel import process_group

__all__ = ["main"]


def main(arguments=None):
    """
    Run ``astro-disentangle fit`` as one of several processes.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line.

    Returns
    -------
    status : int
        0 when all went well, 2 for an error in any of the processes, 130 when stopped.
    """
    from astro_disentangle.cli import main as command

    words = list(sys.argv[1:] if arguments is None else arguments)
    wanted = words[words.index("--device") + 1] if "--device" in words[:-1] else "cpu"
    with process_group(wanted) as device:
        return command(["fit", *words, "--device", device])


if __name__ == "__main__":
    sys.exit(main())

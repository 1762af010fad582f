# Licensed under a 3-clause BSD style license - see licenses/LICENSE.rst
"""The conventions of scikit-learn, by duck typing."""

import inspect

__all__ = ["Estimator"]


class Estimator:
    """
    Parameters, output and tags as scikit-learn expects them.

    A subclass has a constructor with keyword-only parameters that it only
    stores, and ``network_`` once it is fitted.
    """

    def get_params(self, deep=True):
        """
        Parameters of the constructor, as scikit-learn expects.

        Parameters
        ----------
        deep : bool
            Has no effect.

        Returns
        -------
        parameters : dict
            Name to value.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> Disentangler(n_steps=5).get_params()["n_steps"]
        5
        """
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **parameters):
        """
        Change parameters of the constructor.

        Parameters
        ----------
        **parameters
            Name and value.

        Returns
        -------
        self : `~astro_disentangle.Disentangler`
            The model.

        Raises
        ------
        ValueError
            If a name is not a parameter.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> Disentangler().set_params(n_steps=7).n_steps
        7
        """
        valid = self.get_params()
        for name, value in parameters.items():
            if name not in valid:
                raise ValueError(
                    f"Disentangler has no parameter {name!r}; it has {sorted(valid)}."
                )
            setattr(self, name, value)
        return self

    def set_output(self, *, transform=None):
        """
        Choose what ``transform`` returns.

        Parameters
        ----------
        transform : {"table", "array", "default"} or None
            A `~astropy.table.QTable`, an array (N, P + I), or a table again.

        Returns
        -------
        self : `~astro_disentangle.Disentangler`
            The model.

        Raises
        ------
        ValueError
            For any other value.

        Examples
        --------
        >>> from astro_disentangle import Disentangler
        >>> model = Disentangler.load().set_output(transform="array")
        """
        if transform not in ("table", "array", "default", None):
            raise ValueError(
                f"'transform' must be 'table', 'array' or 'default'; got {transform!r}."
            )
        if transform is not None:
            self._output = "table" if transform == "default" else transform
        return self

    def __sklearn_tags__(self):
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="transformer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(two_d_array=False),
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "network_")

    def __repr__(self):
        default = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != default[name].default
        ]
        return f"Disentangler({', '.join(changed)})"

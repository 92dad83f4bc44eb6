"""The version of the package; pyproject.toml reads it from here, so that it is known without an installation."""

__version__ = "0.1.0"

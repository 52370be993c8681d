"""The version of clipalign: read here by the build and by `clipalign.__version__`."""

__version__ = "0.1.0"

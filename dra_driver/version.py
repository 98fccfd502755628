"""The version of gpu-dra: read by the build, sent as user agent, shown by --version."""

__version__ = "0.1.0"

"""The version of this package, for what names it in files and on a terminal."""

__version__ = '0.1.0'

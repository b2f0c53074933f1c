"""What setup.cfg cannot say: configs/ and weights/ are installed inside the package, where `ambdiff.packaged` looks."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=['ambdiff', 'ambdiff.*']), 'ambdiff.configs', 'ambdiff.weights'],
    package_dir={'ambdiff.configs': 'configs', 'ambdiff.weights': 'weights'},
)

# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem; installs the repository's top-level launch/ and config/."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "worldsystem"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["report/*.html"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"lib/{PACKAGE}", ["scripts/reporter", "scripts/monitor"]),
        (f"share/{PACKAGE}/launch", glob("../../launch/*.launch.py")),
        (f"share/{PACKAGE}/config/grafana", glob("../../config/grafana/*")),
        (f"share/{PACKAGE}/config", glob("../../config/*.*")),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    maintainer="WorldSystem maintainers",
    maintainer_email="maintainers@worldsystem.dev",
    description="Bring-up of the whole system.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "worldsystem = worldsystem.cli:main",
        ],
    },
)

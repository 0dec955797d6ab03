# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem_slam3r."""

from setuptools import find_packages, setup

PACKAGE = "worldsystem_slam3r"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["weights/*/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    maintainer="WorldSystem maintainers",
    maintainer_email="maintainers@worldsystem.dev",
    description="Reconstruction back-ends behind one interface.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "slam3r = worldsystem_slam3r.node:main",
        ],
        "rclpy_components": [
            "worldsystem_slam3r::Slam3r = worldsystem_slam3r.node:Slam3rNode",
        ],
    },
)

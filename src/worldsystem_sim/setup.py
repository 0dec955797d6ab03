# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem_sim."""

from setuptools import find_packages, setup

PACKAGE = "worldsystem_sim"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    maintainer="WorldSystem maintainers",
    maintainer_email="maintainers@worldsystem.dev",
    description="Drone flight simulator with exact ground truth.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "simulator = worldsystem_sim.node:main",
        ],
        "rclpy_components": [
            "worldsystem_sim::Simulator = worldsystem_sim.node:SimulatorNode",
        ],
    },
)

# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem_bridge."""

from setuptools import find_packages, setup

PACKAGE = "worldsystem_bridge"

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
    description="Messages for consumers on RabbitMQ.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "bridge = worldsystem_bridge.node:main",
        ],
        "rclpy_components": [
            "worldsystem_bridge::Bridge = worldsystem_bridge.node:BridgeNode",
        ],
    },
)

# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem_ingest."""

from setuptools import find_packages, setup

PACKAGE = "worldsystem_ingest"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={f"{PACKAGE}.webrtc": ["web/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    maintainer="WorldSystem maintainers",
    maintainer_email="maintainers@worldsystem.dev",
    description="Video and telemetry in: sources, the WebSocket server, the decoder and the relay.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "ingest = worldsystem_ingest.node:main",
        ],
        "rclpy_components": [
            "worldsystem_ingest::Ingest = worldsystem_ingest.node:IngestNode",
        ],
    },
)

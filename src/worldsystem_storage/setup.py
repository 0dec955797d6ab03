# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem_storage."""

from setuptools import find_packages, setup

PACKAGE = "worldsystem_storage"

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
    description="Recording as rosbag2 MCAP; mesh, trajectory and video files.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "recorder = worldsystem_storage.node:main",
        ],
        "rclpy_components": [
            "worldsystem_storage::Recorder = worldsystem_storage.node:RecorderNode",
        ],
    },
)

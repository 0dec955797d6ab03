# SPDX-License-Identifier: Apache-2.0
"""Build of worldsystem_viewer."""

from setuptools import find_packages, setup

PACKAGE = "worldsystem_viewer"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={f"{PACKAGE}": ["web/**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    maintainer="WorldSystem maintainers",
    maintainer_email="maintainers@worldsystem.dev",
    description="Web page, Foxglove and Rerun.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "viewer = worldsystem_viewer.node:main",
            "splats = worldsystem_viewer.splats.node:main",
        ],
        "rclpy_components": [
            "worldsystem_viewer::Viewer = worldsystem_viewer.node:ViewerNode",
            "worldsystem_viewer::Splats = worldsystem_viewer.splats.node:SplatsNode",
        ],
    },
)

"""Map the top-level folders to `edgedec.*`; everything else is in pyproject.toml.

The links `src/edgedec/<name>` exist for type checkers and IDEs only: nothing here follows them,
so wheels, zip archives and checkouts without symbolic links install the same package.
"""

from setuptools import find_packages, setup

TOP = ("export", "runtime", "quantize", "kernels", "devices")

own = find_packages("src/edgedec", exclude=[*TOP, *(f"{top}.*" for top in TOP)])
packages = ["edgedec", *(f"edgedec.{name}" for name in own)]
package_dir = {"edgedec": "src/edgedec"}
for top in TOP:
    package_dir[f"edgedec.{top}"] = top
    packages += [f"edgedec.{top}", *(f"edgedec.{top}.{name}" for name in find_packages(top))]

setup(packages=packages, package_dir=package_dir)

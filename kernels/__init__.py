"""Operators of our own: schema, NumPy reference, ONNX function body, and fast implementations."""

import sys

if __name__ == "kernels":
    # The repository root is on sys.path (a notebook, `python -c`, `python -m`), so a bare
    # `import kernels` found this folder in place of the `kernels` distribution that transformers
    # looks for. Hand over to that one; without it the import fails as it would anywhere else.
    import importlib.machinery
    import importlib.util
    from pathlib import Path

    _root = Path(__file__).resolve().parent.parent
    _path = [entry for entry in sys.path if Path(entry or ".").resolve() != _root]
    _spec = importlib.machinery.PathFinder.find_spec("kernels", _path)
    del sys.modules["kernels"]
    if _spec is None or _spec.loader is None:
        raise ModuleNotFoundError(
            "No module named 'kernels' (the folder of this repository is edgedec.kernels)",
            name="kernels",
        )
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["kernels"] = _module
    _spec.loader.exec_module(_module)

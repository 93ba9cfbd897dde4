"""A bundle's graphs as resident graphs: caches of one size, numbers of 16 bits where they do."""

from edgedec.devices.gpu.lowering.lower import lower_resident
from edgedec.devices.gpu.lowering.model import Form, Profile, Resident
from edgedec.devices.gpu.lowering.source import resident_graph, save_resident

__all__ = ["Form", "Profile", "Resident", "lower_resident", "resident_graph", "save_resident"]

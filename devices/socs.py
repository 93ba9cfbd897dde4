"""Qualcomm's systems on chip, by the names that ``--soc`` and ``--device qnn:`` take."""

from __future__ import annotations

from dataclasses import dataclass

from edgedec.errors import InputError

DEFAULT_SOC = "sm8650"


@dataclass(frozen=True)
class Soc:
    """A system on chip: QNN's number for it, and the version of its HTP.

    ``blocks`` tells whether it has products with scales per block of weights (MatMulNBits) and
    16-bit weights and caches; older ones refuse such graphs when they prepare them.
    """

    name: str
    title: str
    number: int
    arch: int
    blocks: bool = True


SOCS = {
    soc.name: soc
    for soc in (
        Soc("sm8350", "Snapdragon 888", 30, 68, blocks=False),
        Soc("sm8450", "Snapdragon 8 Gen 1", 36, 69),
        Soc("sm8550", "Snapdragon 8 Gen 2", 43, 73),
        Soc("sc8380xp", "Snapdragon X Elite", 60, 73),
        Soc("sm8650", "Snapdragon 8 Gen 3", 57, 75),
        Soc("sm8750", "Snapdragon 8 Elite", 69, 79),
        Soc("sm8850", "Snapdragon 8 Elite Gen 5", 87, 81),
    )
}
"""Name -> what QNN calls it."""


def find_soc(name: str) -> Soc:
    """The system on chip of that name.

    Raises:
        InputError: there is none.
    """
    soc = SOCS.get(name.lower())
    if soc is None:
        raise InputError(f"there is no SoC {name!r}; there are: {', '.join(SOCS)}.")
    return soc


def find_socs(name: str) -> tuple[Soc, ...]:
    """Those that a name of several, joined by ``+``, stands for.

    Raises:
        InputError: one is unknown, empty, or there twice.
    """
    if not all(part.strip() for part in name.split("+")):
        raise InputError(
            "--soc has a comma or a plus with no chip beside it: give names such as "
            "--soc sm8650,sm8750."
        )
    socs = tuple(map(find_soc, name.split("+")))
    if len(set(socs)) != len(socs):
        raise InputError(f"{name!r} names a SoC twice.")
    return socs

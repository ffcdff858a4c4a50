"""The fields of CMD: what a map shows, in which unit, and what may be cut from it or taken the logarithm of.

Names and units: https://camels-multifield-dataset.readthedocs.io/en/latest/data.html. Velocities are moduli there; they
may be signed here, as in maps of one's own.
"""

from dataclasses import dataclass

from camelsight.ground import cases, theta

MASS_UNIT = r"$(M_\odot/h)/({\rm Mpc}/h)^2$"


@dataclass(frozen=True)
class Field:
    words: str
    unit: str  # as figures show it; empty where there is none
    least: str = "above 0"  # of its pixels: "above 0", "at least 0" or "any"

    @property
    def is_mass(self):
        """Whether it is a surface density of mass: cuts of density are for these."""
        return self.unit == MASS_UNIT

    @property
    def is_positive(self):
        return self.least == "above 0"

    @property
    def offset(self):
        """What is added to the magnitude before the logarithm: 1 where pixels may be empty, as in CMD's benchmark."""
        return 1.0 if self.least == "at least 0" else 0.0


FIELDS = {
    "Mgas": Field("gas density", MASS_UNIT),
    "Vgas": Field("gas velocity", "(km/s)", "any"),
    "T": Field("gas temperature", "(K)"),
    "P": Field("gas pressure", r"$(h^2 M_\odot\,({\rm km/s})^2/{\rm kpc}^3)$"),
    "Z": Field("gas metallicity", ""),
    "HI": Field("neutral hydrogen density", MASS_UNIT),
    "ne": Field("electron number density", r"$(h^2\,{\rm cm}^{-3}\,{\rm Mpc}/h)$"),
    "B": Field("magnetic fields", "(G)"),
    "MgFe": Field("magnesium over iron", ""),
    "Mcdm": Field("dark matter density", MASS_UNIT),
    "Vcdm": Field("dark matter velocity", "(km/s)", "any"),
    "Mstar": Field("stellar mass density", MASS_UNIT, "at least 0"),
    "Mtot": Field("total matter density", MASS_UNIT),
}
TOTAL = "Mtot"
SIMULATED = ("Mtot", "Mcdm", "Mgas", "Mstar")  # that the twin's model knows
ENVIRONMENT = ("Mtot", "Mcdm", "Mgas")  # what tells over- from underdense regions: the first of these that there is


def of_suite(suite):
    """The names of the fields that CMD has of ``suite``: B of IllustrisTNG alone, and Mtot alone without gas."""
    if theta.is_nbody(suite):
        return (TOTAL,)
    return tuple(name for name in FIELDS if name != "B" or theta.hydro_suite(suite) == "IllustrisTNG")


def check(names, suites):
    """ValueError in one line unless all ``names`` are fields that every one of ``suites`` has."""
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"expected fields among {', '.join(FIELDS)}, got {name!r:.60}")
    for suite in suites:
        if lacking := [name for name in names if name not in of_suite(suite)]:
            got, has = ", ".join(lacking), ", ".join(of_suite(suite))
            raise ValueError(f"expected fields that {suite} has ({has}), got {got}; leave out the field or the suite")


def check_case(names, case):
    """ValueError in one line unless ``case``, an id, can be cut from every one of the fields ``names``.

    Thresholds of density are for mass, and random fill is log-uniform.
    """
    for cut in cases.parse(case).cuts:
        if cut.kind not in cases.DENSITY:
            continue
        if other := [name for name in names if not FIELDS[name].is_mass]:
            raise ValueError(f"expected cuts of density for densities of mass alone, got {case} and {', '.join(other)}")
        if cut.fill == "random" and (empty := [name for name in names if not FIELDS[name].is_positive]):
            raise ValueError(f"expected random fill for fields without pixels of 0, got {case} and {', '.join(empty)}")


def environment(names):
    """Which of the fields ``names`` tells over- from underdense regions: total matter, or what is next to it."""
    return next((name for name in ENVIRONMENT if name in names), names[0])

"""Cases: what is cut from the maps before a network is trained on them.

A case is declared once, by its id in ``params.yaml``; everything else follows from the id:

    original              nothing is cut
    kmax_10               Fourier modes with k >= 10 h/Mpc are removed
    smooth_2              convolved with a Gaussian of standard deviation 2 pixels
    max_1e12_clamp        pixels above 1e12 (Msun/h)/(Mpc/h)^2 are set to the threshold
    min_2e11_random       pixels below are filled with log-uniform noise
    kmax_10__max_1e12_clamp   several cuts, applied in this order
"""

import re
from dataclasses import dataclass

MEAN_SURFACE_DENSITY = 1.3877e12  # (Msun/h)/(Mpc/h)^2 per unit omega_m, for a slab of 5 Mpc/h
LENGTH = 80  # of an id: names of files, of at most 255 bytes, are made of it, of a suite and of a digest
THRESHOLDS = {  # lowest and highest of each kind of cut, far beyond what changes a map
    "kmax": (1e-3, 1e3),  # h/Mpc; maps of CMD hold 0.25 to 46
    "smooth": (1e-3, 512),  # pixels; maps have 512 a side at most
    "max": (1.0, 1e20),  # (Msun/h)/(Mpc/h)^2; maps of CMD hold 1e9 to 1e16
    "min": (1.0, 1e20),
}
DENSITY = "max", "min"  # the kinds of cuts by density
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?"
_FILTER = re.compile(rf"(kmax|smooth)_({_NUMBER})")
_DENSITY = re.compile(rf"(max|min)_({_NUMBER})_(clamp|random)")


@dataclass(frozen=True)
class Cut:
    kind: str  # "kmax", "smooth", "max" (pixels above are cut) or "min" (pixels below are cut)
    threshold: float  # h/Mpc for kmax, pixels for smooth, (Msun/h)/(Mpc/h)^2 otherwise
    fill: str = ""  # "clamp" or "random"; empty for kmax and smooth

    @property
    def label(self):
        if self.kind == "kmax":
            return rf"$k_{{\rm max}} = {self.threshold:g}$"
        if self.kind == "smooth":
            return f"smoothed by {self.threshold:g} pixels"
        mantissa, exponent = f"{self.threshold:e}".split("e")
        number = rf"10^{{{int(exponent)}}}"
        if float(mantissa) != 1:
            number = rf"{float(mantissa):g}\times {number}"
        sign = "<" if self.kind == "max" else ">"
        return rf"$\rho {sign} {number}$, {self.fill}"

    def overdensity(self, omega_m=0.3):
        """The threshold of a density cut in units of the mean surface density at ``omega_m``; None for other cuts."""
        if self.kind not in DENSITY:
            return None
        return self.threshold / (MEAN_SURFACE_DENSITY * omega_m)


@dataclass(frozen=True)
class Case:
    id: str
    cuts: tuple

    @property
    def label(self):
        return " + ".join(cut.label for cut in self.cuts) or "original"

    @property
    def only(self):
        """The cut of a case that has exactly one, otherwise None."""
        return self.cuts[0] if len(self.cuts) == 1 else None


def single(case_ids, *kinds):
    """Case -> its ``Cut``, of those among ``case_ids`` that have one cut alone, and of one of ``kinds``."""
    cuts = {case: parse(case).only for case in case_ids}
    return {case: cut for case, cut in cuts.items() if cut and cut.kind in kinds}


def parse(case_id):
    """``Case`` of an id; ValueError with the grammar if it is none."""
    if case_id == "original":
        return Case(case_id, ())
    if len(str(case_id)) > LENGTH:
        raise ValueError(
            f"expected a case of at most {LENGTH} characters, got one of {len(case_id)}: {case_id[:20]!r}..."
        )
    return Case(case_id, tuple(_parse_cut(part, case_id) for part in str(case_id).split("__")))


def _parse_cut(part, case_id):
    if match := _FILTER.fullmatch(part):
        cut = Cut(match[1], float(match[2]))
    elif match := _DENSITY.fullmatch(part):
        cut = Cut(match[1], float(match[2]), match[3])
    else:
        raise ValueError(
            f"expected a case such as original, kmax_10, max_1e12_clamp or min_2e11_random, got {case_id!r}"
        )
    low, high = THRESHOLDS[cut.kind]
    if not low <= cut.threshold <= high:
        raise ValueError(
            f"expected a threshold of {cut.kind} from {low:g} to {high:g}, got {cut.threshold:g} in case {case_id!r}"
        )
    if float(f"{cut.threshold:g}") != cut.threshold:  # as labels show it
        raise ValueError(f"expected a threshold of at most six digits, got {cut.threshold!r} in case {case_id!r}")
    return cut

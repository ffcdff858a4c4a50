"""A model of galaxy formation: where feedback moves the baryons of a gravity-only run.

In dense places part of the gas is thrown out along the gradient of the smoothed density, as in the gradient models
of Dai, Feng & Seljak (2018, arXiv:1804.00671), and part falls in and condenses. With rho the smoothed density,

    ejected fraction    f = g(rho / rho_SN) F_SN(A_SN1) + g(rho / rho_AGN) F_AGN(A_AGN1),    g(x) = 1 - 1 / max(x, 1)^2
    distance            l = L_SN A_SN2^p + g(rho / rho_AGN) L_AGN A_AGN2^p
    condensed fraction  c = C g(rho / rho_C) (1 - f) / (1 + A_SN1 A_SN2)

times the universal baryon fraction. It conserves mass. It does not act back on dark matter, has no memory and no
scatter, and resolves no galaxies: it gives each parameter its own, monotonic signature.

Reach and condensation were chosen by hand so that the fiducial suppression of P(k) of IllustrisTNG lies between those
published of its two resolutions (TNG100, TNG300) up to 10 h/Mpc, to 2%. SIMBA reaches farther; how far, and Astrid,
are not fitted to anything.
"""

from dataclasses import dataclass

import torch

from camelsight.ground import theta as parameters
from camelsight.universe import linear
from camelsight.universe import mesh as grids

SMOOTHING = 0.4  # Mpc/h, about a halo; fixed, so that the model does not depend on resolution


@dataclass(frozen=True)
class Feedback:
    """The constants of one suite; densities in units of the mean, distances in Mpc/h."""

    ejected_sn: float
    ejected_agn: float
    reach_sn: float
    reach_agn: float
    reach_power: float
    saturating: bool  # F(A) = F0 A / (1 + F0 A), else 1 - exp(-F0 A)
    density_sn: float = 1.5
    density_agn: float = 60.0
    density_condensed: float = 20.0
    condensed: float = 0.4

    def ejected(self, amplitude, scale):
        dose = torch.as_tensor(scale * amplitude)
        return float(dose / (1 + dose) if self.saturating else -torch.expm1(-dose))


SUITES = {
    "IllustrisTNG": Feedback(0.8, 0.06, 0.25, 0.1, 1.6, False),
    "SIMBA": Feedback(1.2, 0.08, 0.6, 0.3, 1.0, True),
    "Astrid": Feedback(0.7, 0.04, 0.2, 0.1, 1.2, False),
}


def by_field(positions, density, theta, suite, box):
    """Field of CMD -> the matter that it shows of a hydrodynamic ``suite``, as pairs (positions, weights).

    Positions are ``(n, 3)``, weights ``(n,)``. Those of Mtot, which sum to n, are in turn dark matter with the gas that
    stayed, ejected gas, and condensed gas, which is stars. ``density`` ``(m, m, m)`` is the gravity-only density in
    units of the mean, ``theta`` the six physical parameters.
    """
    omega_m, _, a_sn1, a_agn1, a_sn2, a_agn2 = (float(value) for value in theta)
    model = SUITES[parameters.hydro_suite(suite)]
    baryons = linear.OMEGA_B / omega_m
    rho, outward = surroundings(positions, density, box)

    in_cluster = gate(rho / model.density_agn)
    ejected = gate(rho / model.density_sn) * model.ejected(a_sn1, model.ejected_sn)
    ejected = (ejected + in_cluster * model.ejected(a_agn1, model.ejected_agn)).clamp_max(1.0)
    distance = model.reach_sn * a_sn2**model.reach_power
    distance = distance + in_cluster * model.reach_agn * a_agn2**model.reach_power
    condensed = model.condensed * gate(rho / model.density_condensed) * (1 - ejected) / (1 + a_sn1 * a_sn2)

    thrown_out = positions + distance[:, None] * outward, baryons * ejected
    stars = positions - SMOOTHING / 2 * outward, baryons * condensed
    return {
        "Mtot": [(positions, 1 - baryons * (ejected + condensed)), thrown_out, stars],
        "Mcdm": [(positions, torch.full_like(ejected, 1 - baryons))],
        "Mgas": [(positions, baryons * (1 - ejected - condensed)), thrown_out],
        "Mstar": [stars],
    }


def gate(x):
    """Zero up to x = 1, then rising to 1."""
    return 1 - x.clamp_min(1) ** -2


def surroundings(positions, density, box):
    """Smoothed density ``(n,)`` and the way out ``(n, 3)``: from zero at a halo's centre to unit length outside it."""
    rho = grids.smooth(density, SMOOTHING, box).clamp_min(1e-3)
    value = grids.read([*grids.gradient(rho.log(), box), rho], positions, box)
    slope = -SMOOTHING * value[:, :3]
    return value[:, 3], slope / (1 + slope.square().sum(dim=1, keepdim=True)).sqrt()

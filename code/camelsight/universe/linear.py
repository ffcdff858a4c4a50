"""Linear theory at CAMELS' fixed cosmology: matter power at z=0 from CAMB, growth in first and second order.

Flat, without massive neutrinos and, for the growth, without radiation. With h, omega_b and n_s fixed the shape
of P(k) depends on omega_m alone, and sigma_8 sets its amplitude; so one table serves any number of cosmologies.
"""

from dataclasses import dataclass
from functools import cache

import camb
import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

HUBBLE = 0.6711
OMEGA_B = 0.049
N_S = 0.9624
SIGMA_8_RADIUS = 8.0  # Mpc/h
OMEGA_M = (0.1, 0.5, 10)  # lowest, highest and number, of the table
K_RANGE = (1e-4, 200.0)  # h/Mpc, of the table
K_CAMB = 10.0  # h/Mpc; beyond, sqrt(P k^(4 - n_s)) is continued linearly in log k, the small-scale limit of CDM
K_POINTS = 512


@dataclass(frozen=True)
class ShapeTable:
    """Logarithm of P(k) for sigma_8 = 1, tabulated ``(n, K_POINTS)`` over ``omega_m`` and ``log_k`` (h/Mpc)."""

    omega_m: np.ndarray
    log_k: np.ndarray
    log_power: np.ndarray

    def power(self, k, omega_m, sigma_8):
        """Linear P(k) at z=0 in (Mpc/h)^3, for ``k`` of any shape in h/Mpc; zero at k=0."""
        low, high = self.omega_m[[0, -1]]
        if not low <= omega_m <= high:
            raise ValueError(f"expected omega_m in [{low:g}, {high:g}], the range of the table, got {omega_m:g}")
        k = np.asarray(k, dtype=np.float64)
        if k.size and not (k.min() >= 0 and k.max() <= K_RANGE[1]):
            raise ValueError(f"expected k in [0, {K_RANGE[1]:g}] h/Mpc, got [{k.min():g}, {k.max():g}]")
        shape = CubicSpline(self.log_k, CubicSpline(np.log(self.omega_m), self.log_power)(np.log(omega_m)))
        power = sigma_8**2 * np.exp(shape(np.log(np.maximum(k, K_RANGE[0]))))
        return np.where(k > 0, power, 0.0)


@cache
def shape_table():
    """``ShapeTable`` from 10 calls of CAMB, which interpolate to 0.1% over the range of CAMELS.

    Below omega_m = 0.12, where half of the matter is baryons, their wiggles are good to 0.4%.
    """
    omega_m = np.geomspace(*OMEGA_M)
    log_k = np.linspace(*np.log(K_RANGE), K_POINTS)
    return ShapeTable(omega_m, log_k, np.stack([_log_shape(value, log_k) for value in omega_m]))


def power(k, omega_m, sigma_8, table=None):
    """Linear P(k) at z=0, (Mpc/h)^3, from ``table`` or from the default one, which is made on first use."""
    return (table or shape_table()).power(k, omega_m, sigma_8)


def sigma_8_of(k, power):
    """The rms of a linear field with ``power`` (Mpc/h)^3 at ascending ``k`` (h/Mpc) in spheres of 8 Mpc/h."""
    x = k * SIGMA_8_RADIUS
    top_hat = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    return np.sqrt(np.trapezoid(power * top_hat**2 * k**3 / (2 * np.pi**2), np.log(k)))


def expansion(a, omega_m):
    """E(a) = H(a)/H0."""
    return np.sqrt(omega_m / np.asarray(a) ** 3 + 1 - omega_m)


def growth(a, omega_m):
    """``(D1, f1, D2, f2)`` at scale factors ``a``, each of its shape; D1 = 1 at a = 1, f = dlnD/dlna.

    D2 is that of Bouchet et al. (1995), negative: D2 -> -3/7 D1^2 while matter dominates.
    """
    a = np.asarray(a, dtype=np.float64)
    start = min(np.log(a.min()), np.log(1e-3)) - 3.0
    nodes, index = np.unique(np.append(np.log(a).ravel(), 0.0), return_inverse=True)
    first, second = np.exp(start), -3 / 7 * np.exp(2 * start)
    solution = solve_ivp(
        _growth_slope,
        (start, nodes[-1]),
        [first, first, second, 2 * second],
        method="DOP853",
        t_eval=nodes,
        args=(omega_m,),
        rtol=1e-9,
        atol=1e-30,
    ).y[:, index.ravel()]
    today = solution[0, -1]
    d1, slope1, d2, slope2 = (row.reshape(a.shape) for row in solution[:, :-1])
    return d1 / today, slope1 / d1, d2 / today**2, slope2 / d2


def _growth_slope(log_a, y, omega_m):
    d1, slope1, d2, slope2 = y
    matter = omega_m * np.exp(-3 * log_a) / expansion(np.exp(log_a), omega_m) ** 2
    friction = 2 - 1.5 * matter
    return [slope1, 1.5 * matter * d1 - friction * slope1, slope2, 1.5 * matter * (d2 - d1**2) - friction * slope2]


def nonlinear_power(k, omega_m, sigma_8):
    """Nonlinear P(k) at z=0 in (Mpc/h)^3 of an infinite universe, by HMCode2020 without feedback (Mead et al. 2021)."""
    parameters = _parameters(omega_m)
    parameters.set_matter_power(redshifts=[0.0], kmax=1.1 * np.max(k) * HUBBLE, silent=True)
    parameters.NonLinear = camb.model.NonLinear_none
    transfer = camb.get_transfer_functions(parameters)
    transfer.calc_power_spectra()
    amplitude = (sigma_8 / transfer.get_sigma8_0()) ** 2
    parameters.InitPower.set_params(As=parameters.InitPower.As * amplitude, ns=N_S)
    parameters.NonLinear = camb.model.NonLinear_both
    parameters.NonLinearModel.set_params(halofit_version="mead2020")
    transfer.calc_power_spectra(parameters)
    grid, _, (power,) = transfer.get_nonlinear_matter_power_spectrum()
    return np.exp(CubicSpline(np.log(grid), np.log(power))(np.log(k)))


def _parameters(omega_m):
    return camb.set_params(
        H0=100 * HUBBLE,
        ombh2=OMEGA_B * HUBBLE**2,
        omch2=(omega_m - OMEGA_B) * HUBBLE**2,
        omk=0,
        mnu=0,
        ns=N_S,
        WantCls=False,
        WantDerivedParameters=False,
    )


def _log_shape(omega_m, log_k):
    parameters = _parameters(omega_m)
    parameters.set_matter_power(redshifts=[0.0], kmax=K_CAMB * HUBBLE, silent=True)
    parameters.NonLinear = camb.model.NonLinear_none
    parameters.Accuracy.TransferkBoost = parameters.Accuracy.IntkAccuracyBoost = 0.7  # of its wave numbers
    k, _, (power,) = camb.get_transfer_functions(parameters).get_linear_matter_power_spectrum()
    # This root is smooth and grows like k^2 on large scales, like log k on small ones.
    root = CubicSpline(np.log(k), np.sqrt(power * k ** (4 - N_S)))
    last = np.log(k[-1])
    large = np.log(root(np.log(k[0]))) + 2 * (log_k - np.log(k[0]))
    inside = np.clip(log_k, np.log(k[0]), last)
    small = root(inside) + root(last, 1) * np.maximum(log_k - last, 0)
    log_power = 2 * np.where(log_k < np.log(k[0]), large, np.log(small)) - (4 - N_S) * log_k
    return log_power - 2 * np.log(sigma_8_of(np.exp(log_k), np.exp(log_power)))

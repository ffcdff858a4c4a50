"""CAMELS' own universes from public seeds: parameters, initial phases, and maps of the same regions, the twin's.

The recipe is that of the set-up scripts in the public CAMELS repository (MIT). A table of parameters is a Latin
hypercube of NumPy's legacy generator. The initial conditions are those of 2LPTic, whose noise is N-GenIC's and whose
random numbers are ranlxd1, RANLUX in 48 bits (Luescher 1994, arXiv:hep-lat/9309020), as the GNU Scientific Library
has it.
"""

import numpy as np
import torch

from camelsight.ground import cmd, theta
from camelsight.ground.fields import TOTAL
from camelsight.universe import baryons, nbody, projection
from camelsight.universe import mesh as grids

HYPERCUBE_SEEDS = {"IllustrisTNG": 1, "SIMBA": 2, "Astrid": 4}
FIRST_SEEDS = {"IllustrisTNG": 0, "SIMBA": 5000, "Astrid": 10000}  # of the initial conditions of LH_0
DECIMALS = 5  # of CMD's files
SEED_RANGE = 0x7FFFFFFF  # N-GenIC's seeds of columns lie below

BITS, WORDS, LAG = 48, 12, 7  # of ranlxd1: numbers of 48 bits, how many, and how far apart two of them are subtracted
LUXURY = 202  # steps between two rounds of draws
REGISTER, TAP = 31, 18  # of the shift register that seeds it


def parameters(suite):
    """The parameters of the LH set of ``suite``, gravity-only or not: ``(1000, 6)`` float64, rounded as CMD's file."""
    hydro = theta.hydro_suite(suite)
    generator, shape = np.random.RandomState(HYPERCUBE_SEEDS[hydro]), (cmd.SIMULATIONS, len(theta.NAMES))
    generator.rand(*shape)  # the recipe draws places within the cells, then takes their centres
    centres = (np.arange(cmd.SIMULATIONS) + 0.5) / cmd.SIMULATIONS
    unit = np.stack([generator.permutation(centres) for _ in theta.NAMES], axis=1)
    table = rounded(theta.from_prior(unit, "IllustrisTNG"))
    if hydro == "Astrid":  # its wider range of A_AGN2 was made from the finished table
        table[:, -1] = rounded(table[:, -1] ** 2)
    return table


def text(table):
    """The bytes of CMD's file of a table of parameters ``(S, 6)``, as text."""
    lines = (" ".join(f"{value:.{DECIMALS}f}" for value in row) for row in table)
    return "".join(f"{line}\n" for line in lines)


def rounded(values):
    """To the decimals of CMD's files, ties upwards: Astrid's table has one, 0.605 squared."""
    return np.floor(values * 10**DECIMALS + 0.5) / 10**DECIMALS


def initial_seed(suite, simulation):
    """The seed of the initial conditions of LH_``simulation``; a gravity-only partner has its suite's."""
    if not 0 <= simulation < cmd.SIMULATIONS:
        raise ValueError(f"expected a simulation from 0 to {cmd.SIMULATIONS - 1}, got {simulation}")
    return FIRST_SEEDS[theta.hydro_suite(suite)] + simulation


def maps(
    suites, simulation, *, particles, pixels, fields=(TOTAL,), linear_table=None, mesh=None, steps=None, device="cpu"
):
    """The twin of LH_``simulation``: suite -> field -> maps ``(15, pixels, pixels)`` float32, (Msun/h)/(Mpc/h)^2.

    ``suites`` are X, Nbody_X or both, which share one run of gravity; ``mesh`` and ``steps`` are ``nbody.evolve``'s.
    """
    first, *others = suites
    if any(theta.hydro_suite(other) != theta.hydro_suite(first) for other in others):
        raise ValueError(f"expected suites with the same initial conditions, got {', '.join(suites)}")
    settings = {"particles": particles, "mesh": mesh, "steps": steps, "device": device, "linear_table": linear_table}
    return observed(gravity(first, simulation, **settings), parameters(first)[simulation], suites, pixels, fields)


def observed(positions, values, suites, pixels, fields=(TOTAL,)):
    """The maps of ``suites``, as ``maps`` has them, of a run of gravity that ended at ``positions`` ``(n**3, 3)``.

    ``values`` ``(6,)`` are the physical parameters; gravity-only suites use the first alone.
    """
    density, omega_m = grids.paint(positions, round(len(positions) ** (1 / 3)), cmd.BOX), float(values[0])
    found = {}
    for suite in suites:
        if theta.is_nbody(suite):
            matter = {TOTAL: [(positions, torch.ones_like(positions[:, 0]))]}
        else:
            matter = baryons.by_field(positions, density, values, suite, cmd.BOX)
        found[suite] = {}
        for field in fields:
            share = 1.0 if field == TOTAL else _share(matter[field])
            made = projection.surface_density(matter[field], density, omega_m * share, pixels)
            found[suite][field] = made.cpu().numpy()
    return found


def _share(parts):
    """That of ``parts``, pairs of positions and weights, in all matter."""
    return sum(weights.double().sum().item() for _, weights in parts) / len(parts[0][0])


def gravity(suite, simulation, *, particles, mesh=None, steps=None, device="cpu", linear_table=None):
    """Positions at z=0 of LH_``simulation`` of ``suite`` without baryons, as those of ``nbody.evolve``."""
    noise = white_noise(initial_seed(suite, simulation), particles, device).to(torch.complex64)
    omega_m, sigma_8 = (float(value) for value in parameters(suite)[simulation, :2])
    contrast_k = nbody.scaled(noise, omega_m, sigma_8, linear_table)
    return nbody.wrap(nbody.evolve_contrast(contrast_k, omega_m, mesh=mesh, steps=steps))


def white_noise(seed, particles, device="cpu"):
    """N-GenIC's modes ``(n, n, n // 2 + 1)`` complex128 of unit variance on the grid of ``rfftn``, n even.

    Hermitian; zero at k=0 and at modes with an index n / 2. A mode does not depend on n.
    """
    n, half = particles, particles // 2
    if n % 2 or n < 4:
        raise ValueError(f"expected an even number of particles a side, 4 or more, got {n}")
    seeds = torch.zeros(n, n, dtype=torch.int64)
    seeds[shell_order(n)] = torch.tensor([int(SEED_RANGE * u) for u in map(uniform, ranlxd1(int(seed), n * n))])
    # Each column draws phase and amplitude in turn. An amplitude of 0 would be drawn again; at 256^3 particles one
    # simulation in 30 million has such a mode, and it would be infinite here.
    phase, amplitude = uniform(torch.stack(ranlxd1(seeds.to(device), n))).view(half, 2, n, n).unbind(1)
    noise = torch.zeros(n, n, half + 1, dtype=torch.complex128, device=device)
    noise[..., :half] = torch.polar((-amplitude.log()).sqrt(), 2 * np.pi * phase).permute(1, 2, 0)
    noise[half], noise[:, half], noise[0, 0, 0] = 0, 0, 0
    plane = noise[..., 0]
    mirrored = plane.roll((-1, -1), (0, 1)).flip(0, 1).conj()
    plane[half + 1 :] = mirrored[half + 1 :]
    plane[0, half + 1 :] = mirrored[0, half + 1 :]
    return noise


def shell_order(n):
    """Rows and columns ``(n * n,)`` each of an ``(n, n)`` table, as N-GenIC fills it: from its corners inwards.

    So the seed that belongs to a wave vector stays the same as n grows.
    """
    shells = []
    for i in range(n // 2):
        inner, edge = torch.arange(i), torch.arange(i + 1)
        row, column = torch.cat([inner.new_full((i,), i), edge]), torch.cat([inner, edge.new_full((i + 1,), i)])
        for columns in (column, -1 - column):
            shells += [torch.stack([rows, columns]) for rows in (row, -1 - row)]
    return tuple(torch.cat(shells, dim=1))


def uniform(number):
    """A number of ``ranlxd1``, or a tensor of them, in [0, 1), float64."""
    return (number.double() if torch.is_tensor(number) else number) * 2.0**-BITS


def ranlxd1(seed, draws):
    """The first ``draws`` numbers, of 48 bits, of RANLUX at luxury 1: a list.

    ``seed`` is an int, or an int64 tensor with which every number is such a tensor: one generator each.
    """
    x, r, borrow, drawn = seeded(seed), 0, 0, []
    while len(drawn) < draws:
        for _ in range(LUXURY):
            difference = x[(r + LAG) % WORDS] - x[r] + borrow
            x[r], borrow = difference & ((1 << BITS) - 1), difference >> BITS  # the shift gives 0 or -1
            r = (r + 1) % WORDS
        drawn += x[r:] + x[:r]
    return drawn[:draws]


def seeded(seed):
    """The twelve numbers that ``ranlxd1`` starts from: complements of what a shift register puts out."""
    seed = seed + (seed == 0)  # the library takes 0 as 1
    register, p, numbers = [(seed >> place) & 1 for place in range(REGISTER)], 0, []
    for _ in range(WORDS):
        number = 0
        for _ in range(BITS):
            number = 2 * number + 1 - register[p]
            register[p] = register[p] ^ register[(p + TAP) % REGISTER]
            p = (p + 1) % REGISTER
        numbers.append(number)
    return numbers

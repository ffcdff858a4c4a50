"""Figures of the simulator: the twin beside CAMELS, power spectra, baryons."""

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from camelsight.ground import theta
from camelsight.report import plotting
from camelsight.report.plotting import BLACK, BLUE, DENSITY_UNIT, GREY, ORANGE, PAGE, SKY, VERMILION
from camelsight.report.tables import suite_label


@plotting._styled
def twin(published, suites):
    """A published map of log10 density ``(n, n)``, ours of the same simulation, and how far they agree by scale.

    ``suites`` is suite → dict of ``log10`` (n, n), ``k`` (B,), ``correlation`` and ``power`` (B,). The first is shown.
    """
    figure = plotting._figure(PAGE, 2.5)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
    first = next(iter(suites.values()))
    densities = [10 ** np.asarray(log10, dtype=float) for log10 in (published, first["log10"])]
    norm = plotting._density_norm(np.stack(densities))
    for axes, density, title in zip((left, middle), densities, ("published, digitised", "the twin"), strict=True):
        image = plotting._density(axes, density, norm)
        axes.set_title(title)
    plotting._scale_bar(left)
    label = f"surface density {DENSITY_UNIT}"
    figure.colorbar(image, ax=[left, middle], label=label, orientation="horizontal", aspect=40, pad=0.02)
    wide_and_upon_it = ({"lw": 3, "alpha": 0.4}, {"lw": 1, "ls": "--"})  # since they hardly differ
    for (suite, one), style in zip(suites.items(), wide_and_upon_it, strict=True):
        label = "gravity alone" if theta.is_nbody(suite) else "with baryons"
        right.plot(one["k"], one["correlation"], color=BLUE, label=f"correlation, {label}", **style)
        right.plot(one["k"], one["power"], color=ORANGE, label=f"power ratio, {label}", **style)
    right.axhline(1, color=GREY, lw=0.6)
    k = np.asarray(first["k"])
    right.set(xscale="log", xlabel=r"$k$  $(h/{\rm Mpc})$", ylabel="twin against published map", ylim=(0, 2.2))
    right.set_xlim(k[0], k[-1])
    plotting._one_two_five(right.xaxis, (k[0], k[-1]))
    right.legend(loc="upper left", fontsize=7)
    return figure


@plotting._styled
def power_spectrum(gravity):
    """P(k) of the simulator's gravity with its scatter, of a finer run, and of theory; ratios below.

    ``gravity`` holds ``k`` (B,), ``power`` (seeds, B), ``converged`` (B,) of the first seed, ``linear`` and ``hmcode``
    (B,), ``k_half_nyquist`` of the particles, and ``k_resolved``, where force resolution ends; h/Mpc, (Mpc/h)^3.
    """
    figure = plotting._figure(PAGE, 3.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    k, power, finer, hmcode = (np.asarray(gravity[name]) for name in ("k", "power", "converged", "hmcode"))
    mean, scatter = power.mean(axis=0), power.std(axis=0, ddof=1)
    above.fill_between(k, np.maximum(mean - scatter, power.min(axis=0)), mean + scatter, color=ORANGE, alpha=0.25, lw=0)
    above.plot(k, mean, color=ORANGE, label=f"twin, mean and scatter of {len(power)} seeds")
    above.plot(k, power[0], color=BLUE, ls="--", label="twin, one seed")
    above.plot(k, finer, color=VERMILION, ls=":", lw=1.6, label="the same, finer mesh and more steps")
    above.plot(k, hmcode, color=BLACK, label="HMCode2020")
    above.plot(k, gravity["linear"], color=GREY, ls="-.", label="linear theory")
    below.plot(k, mean / hmcode, color=ORANGE, label="mean / HMCode2020")
    below.plot(k, power[0] / finer, color=BLUE, ls="--", label="one seed / finer run")
    below.axhspan(0.9, 1.1, color=GREY, alpha=0.2, lw=0)
    below.axhline(1, color=GREY, lw=0.6)
    marks = sorted([(gravity["k_half_nyquist"], "half the Nyquist $k$ of particles"),
                    (gravity["k_resolved"], "force resolution ends")])  # fmt: skip
    for (position, label), side in zip(marks, ("right", "left"), strict=True):
        for axes in (above, below):
            axes.axvline(position, color=GREY, lw=0.7, ls=":")
        plotting._above(above, position, label, side)
    above.set(xscale="log", yscale="log", ylabel=r"$P(k)$  $({\rm Mpc}/h)^3$", xlim=(k[0], k[-1]))
    below.set(xlabel=r"$k$  $(h/{\rm Mpc})$", ylabel="ratio", ylim=(0, 1.3))
    plotting._one_two_five(below.xaxis, (k[0], k[-1]))
    above.legend(loc="lower left")
    below.legend(loc="lower left", ncols=2)
    return figure


@plotting._styled
def baryons(k, suites):
    """P(k) with baryons over P(k) of gravity alone: a row per suite, a column per astrophysical parameter.

    ``suites`` is a dict of suite → dict with ``fiducial`` (seeds, B) and ``varied``: parameter → ``(2, B)``, at its
    lowest and highest value, for the first seed.
    """
    names = list(next(iter(suites.values()))["varied"])
    figure = plotting._figure(PAGE, 3.4)
    grid = figure.subplots(len(suites), len(names), sharex=True, sharey=True, squeeze=False)
    for row, (suite, ratios) in zip(grid, suites.items(), strict=True):
        for axes, name in zip(row, names, strict=True):
            for values, colour, line, label in zip(
                (*ratios["varied"][name], ratios["fiducial"][0]),
                (SKY, VERMILION, BLACK),
                ("--", ":", "-"),
                ("lowest", "highest", "fiducial"),
                strict=True,
            ):
                axes.plot(k, values, color=colour, ls=line, lw=1.3 if line == ":" else 1.0, label=label)
            axes.axhline(1, color=GREY, lw=0.6)
        row[0].set_ylabel(f"{suite_label(suite)}\nhydrodynamic / gravity")
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(theta.LABELS[name])
    for axes in grid[-1]:
        axes.set_xlabel(r"$k$  $(h/{\rm Mpc})$")
    axes.set(xscale="log", xlim=(k[0], k[-1]))
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    plotting._legend(figure, axes.get_legend_handles_labels()[0])
    return figure

"""Figures of attributions and of the checks that they pass."""

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from camelsight.ground import theta
from camelsight.ground.fields import FIELDS, TOTAL
from camelsight.report import plotting
from camelsight.report.plotting import BLACK, BLUE, GREEN, GREY, PAGE, SUITES, VERMILION

METHODS = {  # line style, label
    "saliency": (":", "Saliency"),
    "integrated_gradients": ("-", "Integrated Gradients"),
    "gradient_shap": ("--", "GradientSHAP"),
}
METHOD_COLOURS = {"saliency": VERMILION, "integrated_gradients": BLUE, "gradient_shap": GREEN}
LINEAR_BELOW = 0.01  # of the 99th percentile: attribution spans decades, its sign matters, its smallest values do not


@plotting._styled
def attribution_maps(density, attributions, *, fields=(TOTAL,)):
    """One map and what each method attributes to its pixels: a row per parameter, a column per method, one scale.

    ``density`` is ``(C, n, n)``, a channel per field; ``attributions`` is a dict of method → ``(P, C, n, n)``, signed,
    in normalised parameters per pixel (Saliency: per pixel and standard deviation of the scaled maps).
    """
    side = (PAGE - 0.9) / (len(attributions) + 1)
    figure = plotting._figure(PAGE, len(fields) * (len(theta.COSMOLOGICAL) * side + 0.2))
    norm = _signed_norm(np.stack(list(attributions.values())))
    for part, channel, field in plotting._by_field(figure, fields):
        grid = part.add_gridspec(len(theta.COSMOLOGICAL), len(attributions) + 1)
        left = part.add_subplot(grid[0, 0], title="map")
        image = plotting._density(left, density[channel], plotting._density_norm(density[channel], field))
        plotting._scale_bar(left)
        below = part.add_subplot(grid[-1, 0], frame_on=False, xticks=[], yticks=[])
        bar = below.inset_axes((0.02, 0.9, 0.96, 0.06))
        part.colorbar(image, cax=bar, orientation="horizontal", label=plotting._field_label(field, "\n"))
        panels = []
        for column, (method, stack) in enumerate(attributions.items(), start=1):
            for row, (name, attribution) in enumerate(zip(theta.COSMOLOGICAL, stack[:, channel], strict=True)):
                axes = part.add_subplot(grid[row, column])
                signed = plotting._image(axes, attribution, norm)
                panels.append(axes)
                if row == 0:
                    axes.set_title(METHODS[method][1])
                if column == 1:
                    axes.set_ylabel(theta.LABELS[name])
        _signed_bar(part, signed, panels, "attribution (normalised parameter per pixel)")
    return figure


@plotting._styled
def attribution_cuts(panels, *, fields=(TOTAL,), method="integrated_gradients"):
    """A map under the cuts of several cases and the attributions of their networks: a column per case.

    ``panels`` is a list of ``(Case, (C, n, n) map, (P, C, n, n) attribution)``, a channel per field.
    """
    columns = len(panels)
    side = min(1.6, (PAGE - 0.9) / columns)
    figure = plotting._figure(
        min(PAGE, columns * side + 1.1), len(fields) * ((len(theta.COSMOLOGICAL) + 1) * side + 0.45)
    )
    signed_norm = _signed_norm(np.stack([stack for *_, stack in panels]))
    for part, channel, field in plotting._by_field(figure, fields):
        grid = part.subplots(len(theta.COSMOLOGICAL) + 1, columns, squeeze=False)
        norm = plotting._density_norm(panels[0][1][channel], field)
        for column, (case, maps, stack) in zip(grid.T, panels, strict=True):
            image = plotting._density(column[0], maps[channel], norm)
            column[0].set_title(case.label if columns <= 3 else case.label.replace(", ", ",\n"), fontsize=7)
            for axes, attribution in zip(column[1:], stack[:, channel], strict=True):
                signed = plotting._image(axes, attribution, signed_norm)
        grid[0, 0].set_ylabel("map")
        for axes, name in zip(grid[1:, 0], theta.COSMOLOGICAL, strict=True):
            axes.set_ylabel(f"{METHODS[method][1]}\n{theta.LABELS[name]}" if side > 1.2 else theta.LABELS[name])
        plotting._scale_bar(grid[0, 0])
        label = "surface density" if field == TOTAL else FIELDS[field].words
        part.colorbar(image, ax=grid[0], label=label, aspect=12, pad=0.01)
        _signed_bar(part, signed, list(grid[1:].flat), "attribution per pixel", aspect=24)
    return figure


def _signed_norm(values):
    """Logarithmic in both directions, linear around zero, up to the 99.5th percentile of the magnitude."""
    scale = np.percentile(np.abs(values), 99.5) or 1.0
    return SymLogNorm(LINEAR_BELOW * scale, vmin=-scale, vmax=scale)


def _signed_bar(figure, image, panels, label, aspect=30):
    top = image.norm.vmax
    decades = 10.0 ** np.arange(np.ceil(np.log10(LINEAR_BELOW * top)), np.floor(np.log10(top)) + 1)
    bar = figure.colorbar(image, ax=panels, extend="both", aspect=aspect, pad=0.01, ticks=[*-decades, 0, *decades])
    bar.set_label(label)
    bar.ax.yaxis.set_major_formatter(_power_of_ten)
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _power_of_ten(value, _):
    return "0" if value == 0 else rf"${'-' if value < 0 else ''}10^{{{round(np.log10(abs(value)))}}}$"


@plotting._styled
def attribution_against_density(bins):
    """Attribution against overdensity: per pixel above, as a share of the total below, a column per parameter.

    ``bins`` is a dict of suite → parameter → method → dict with ``centres`` ``(B,)`` in units of the mean density,
    ``area`` ``(B,)`` fractions of all pixels, ``per_pixel`` (in units of the mean over all pixels) and ``total``
    (fractions), each ``(value, low, high)`` of ``(B,)``.
    """
    suites, names = list(bins), list(next(iter(bins.values())))
    methods = list(bins[suites[0]][names[0]])
    figure = plotting._figure(PAGE, 3.4)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for (above, below), name in zip(grid.T, names, strict=True):
        for suite in suites:
            for method, table in bins[suite].get(name, {}).items():
                _banded(above, table["centres"], table["per_pixel"], suite, method)
                _banded(below, table["centres"], np.multiply(table["total"], 100), suite, method)
        table = bins[suites[0]][name][methods[0]]
        share = np.where(table["area"], np.multiply(table["area"], 100), np.nan)
        below.stairs(share, _edges(table["centres"]), color=GREY, lw=1.2, baseline=None)
        above.set(title=theta.LABELS[name], xscale="log", yscale="log")
        below.set_xlabel(r"$\rho/\bar\rho$")
        for axes in (above, below):
            axes.axvline(1, color=GREY, lw=0.6, ls=":")
    plotting._one_two_five(grid[0, 0].yaxis, grid[0, 0].get_ylim())
    grid[0, 0].set_ylabel("attribution per pixel\n(mean pixel = 1)")
    grid[1, 0].set_ylabel("share of the total (%)")
    area = Line2D([], [], color=GREY, lw=1.2, label="share of the area")
    plotting._legend(figure, [*_suite_and_method_handles(suites, methods), area])
    return figure


@plotting._styled
def attribution_scales(fourier, rows, k_nyquist):
    """Attribution and density in Fourier space above, R² against k_max below, on one axis of k in h/Mpc.

    ``fourier`` is a dict of suite → parameter → method → dict with ``k`` ``(B,)`` and ``correlation``, (value, low,
    high) of ``(B,)``; ``rows`` as in ``r2_against_kmax``.
    """
    suites, names = list(fourier), list(next(iter(fourier.values())))
    methods = list(fourier[suites[0]][names[0]])
    figure = plotting._figure(PAGE, 3.6)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for (above, below), name in zip(grid.T, names, strict=True):
        for suite in suites:
            for method, table in fourier[suite][name].items():
                _banded(above, table["k"], table["correlation"], suite, method)
        above.axhline(0, color=GREY, lw=0.6, ls=":")
        above.set(title=theta.LABELS[name], xscale="log", ylim=(-1.05, 1.05))
        plotting._originals(below, rows, name, band=True)
        plotting._curves(below, rows, name, "kmax")
        below.set_xlabel(r"$k$ or $k_{\rm max}$  $(h/{\rm Mpc})$")
        for axes in (above, below):
            axes.axvline(k_nyquist, color=GREY, lw=0.7, ls=":")
    k = fourier[suites[0]][names[0]][methods[0]]["k"]
    limits = k[0] / 1.2, k[-1] * 1.2
    above.set_xlim(limits)
    plotting._one_two_five(below.xaxis, limits)
    grid[0, 0].set_ylabel("correlation of the attribution's\nmagnitude with density")
    grid[1, 0].set_ylabel("$R^2$")
    figure.legend(handles=_suite_and_method_handles(suites, methods), loc="outside upper center", ncols=6)
    return figure


@plotting._styled
def attribution_profiles(around):
    """|attribution| against the distance from void centres (top) and haloes (bottom), a column per parameter.

    ``around`` is a dict of suite → parameter → method → "voids" or "halos" → dict with ``r`` ``(B,)`` in Mpc/h and
    ``profile``, (value, low, high) of ``(B,)`` in units of the map's mean.
    """
    suites, names = list(around), list(next(iter(around.values())))
    methods = list(around[suites[0]][names[0]])
    figure = plotting._figure(PAGE, 3.6)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for row, (kind, label) in zip(grid, (("voids", "void centres"), ("halos", "haloes")), strict=True):
        for axes, name in zip(row, names, strict=True):
            for suite in suites:
                for method, tables in around[suite][name].items():
                    _banded(axes, tables[kind]["r"], tables[kind]["profile"], suite, method)
            axes.axhline(1, color=GREY, lw=0.6, ls=":")
        row[0].set_ylabel(f"attribution around {label}\n(mean pixel = 1)")
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(theta.LABELS[name])
    for axes in grid[-1]:
        axes.set_xlabel(r"distance  $({\rm Mpc}/h)$")
    figure.legend(handles=_suite_and_method_handles(suites, methods), loc="outside upper center", ncols=6)
    return figure


@plotting._styled
def sanity(cascade, curves):
    """Randomised layers, deletion and insertion of one suite: a row per parameter.

    ``cascade`` is a dict of layer → parameter → method → rank correlation, from the output to the input; ``curves``
    of parameter → dict with ``fractions`` ``(F,)``, and ``deletion`` and ``insertion``: method or "random" → R²
    ``(F,)``, on an axis that is even in 1 / (2 - R²).
    """
    names = list(curves)
    methods = [method for method in METHODS if method in curves[names[0]]["deletion"]]
    figure = plotting._figure(PAGE, 1.6 * len(names) + 0.6)
    grid = figure.subplots(len(names), 3, sharex="col", squeeze=False)
    layers = list(cascade)
    for row, name in zip(grid, names, strict=True):
        for method in methods:
            values = [1.0, *(cascade[layer][name][method] for layer in layers)]
            row[0].plot(range(len(values)), values, color=METHOD_COLOURS[method], ls=METHODS[method][0], marker=".")
        row[0].axhline(0, color=GREY, lw=0.6, ls=":")
        row[0].set(ylim=(-0.25, 1.1), ylabel=f"{theta.LABELS[name]}\nrank correlation")
        for axes, kind in zip(row[1:], ("deletion", "insertion"), strict=True):
            percent = 100 * np.asarray(curves[name]["fractions"])
            for key, values in curves[name][kind].items():
                colour, line = (METHOD_COLOURS[key], METHODS[key][0]) if key in METHODS else (GREY, "-.")
                axes.plot(percent, values, color=colour, ls=line, marker=".")
            axes.set_xscale("symlog", linthresh=percent[1], linscale=0.4)
            axes.set_yscale("function", functions=(lambda r2: 1 / (2 - r2), lambda share: 2 - 1 / share))
            axes.set(ylim=(-20, 1.02), ylabel="$R^2$")
            axes.yaxis.set_major_locator(FixedLocator([-10, -3, -1, 0, 0.5, 1]))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_major_locator(FixedLocator([0, 1, 10, 100]))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
    for axes, title in zip(grid[0], ("weights drawn anew", "deletion", "insertion"), strict=True):
        axes.set_title(title)
    grid[-1, 0].set(xlabel="layers, from the output", xlim=(-0.5, len(layers) + 0.5))
    for axes in grid[-1, 1:]:
        axes.set_xlabel("pixels replaced (%)")
    handles = [
        Line2D([], [], color=METHOD_COLOURS[method], ls=METHODS[method][0], marker=".", label=METHODS[method][1])
        for method in methods
    ]
    handles.append(Line2D([], [], color=GREY, ls="-.", marker=".", label="random order"))
    plotting._legend(figure, handles)
    return figure


def _suite_and_method_handles(suites, methods):
    lines = [Line2D([], [], color=BLACK, ls=METHODS[method][0], label=METHODS[method][1]) for method in methods]
    return [*plotting._suite_handles(suites), *lines]


def _edges(centres):
    """``(B + 1,)`` edges of bins that are equally wide in the logarithm."""
    log = np.log(centres)
    half = np.mean(np.diff(log)) / 2
    return np.exp(np.append(log - half, log[-1] + half))


def _banded(axes, x, values, suite, method):
    value, low, high = values
    colour, marker = SUITES[suite]
    axes.plot(x, value, color=colour, marker=marker, ls=METHODS[method][0], markersize=2.5)
    axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)

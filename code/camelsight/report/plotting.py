"""The figures of the paper, one function each. Every function returns a ``Figure`` and opens no file.

The same thing has the same colour, marker and line style in every figure; all are told apart in grey print too.
"""

from functools import wraps

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from camelsight.ground import cases, theta
from camelsight.report.tables import suite_label

PAGE = 7.0  # width in inches
STYLE = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "legend.frameon": False,
    "image.interpolation": "none",
    "image.origin": "lower",
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
}

# Okabe & Ito (2008), colours that colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#8C8C8C"
SUITES = {
    "IllustrisTNG": (BLUE, "o"),
    "Nbody_IllustrisTNG": (ORANGE, "s"),
    "SIMBA": (GREEN, "^"),
    "Nbody_SIMBA": (PURPLE, "v"),
    "Astrid": (VERMILION, "D"),
    "Nbody_Astrid": (SKY, "P"),
}
FILLS = {"clamp": ("-", "full"), "random": ("--", "none")}  # line style, marker fill
METHODS = {  # line style, label
    "saliency": (":", "Saliency"),
    "integrated_gradients": ("-", "Integrated Gradients"),
    "gradient_shap": ("--", "GradientSHAP"),
}
METHOD_COLOURS = {"saliency": VERMILION, "integrated_gradients": BLUE, "gradient_shap": GREEN}
KINDS = {
    "input": (GREY, "map"),
    "conv": (SKY, "convolutions"),
    "dense": (ORANGE, "fully connected"),
    "output": (GREEN, "means and standard deviations"),
}
DENSITY_UNIT = r"$(M_\odot/h)\,/\,({\rm Mpc}/h)^2$"
DENSITY_MAP, SIGNED_MAP, NEGATIVE = "magma", "RdBu_r", SKY
LINEAR_BELOW = 0.01  # of the 99th percentile: attribution spans decades, its sign matters, its smallest values do not


class _StyledFigure(Figure):
    """Draws and saves with the style that it was made with: Matplotlib reads some settings only then."""

    def draw(self, renderer):
        with mpl.rc_context(STYLE):
            super().draw(renderer)

    def savefig(self, *args, **kwargs):
        with mpl.rc_context(STYLE):
            super().savefig(*args, **kwargs)


def _styled(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapper


def _figure(width, height):
    return _StyledFigure(figsize=(width, height), layout="constrained")


@_styled
def architecture(layers):
    """The network from left to right: one block per layer, its height the map size, its width the channels.

    ``layers`` are ``(name, channels, size, kind)``, the input first; ``kind`` is a key of ``KINDS``.
    """
    figure = _figure(PAGE, 1.9)
    axes = figure.add_subplot(aspect="equal")
    axes.axis("off")
    largest = max(size for _, _, size, _ in layers)
    heights = [0.12 + 0.95 * np.log2(size + 1) / np.log2(largest + 1) for _, _, size, _ in layers]
    widths = [0.05 + 0.04 * np.log2(channels + 1) for _, channels, _, _ in layers]
    step = (PAGE - 0.1) / len(layers)
    for index, (name, channels, size, kind) in enumerate(layers):
        x, width, height = index * step, widths[index], heights[index]
        right = _cuboid(axes, x, width, height, KINDS[kind][0])
        axes.text(x + width / 2, -0.68, name, ha="center", va="top")
        axes.text(x + width / 2, -0.84, _shape(channels, size), ha="center", va="top", fontsize=7.5)
        if index + 1 < len(layers):
            axes.annotate(
                "", ((index + 1) * step - 0.03, 0), (right + 0.03, 0), arrowprops={"arrowstyle": "->", "lw": 0.6}
            )
    axes.set(xlim=(-0.35 * step, (len(layers) - 0.35) * step), ylim=(-1.0, 0.72))
    kinds = dict.fromkeys(kind for *_, kind in layers)
    handles = [Patch(facecolor=KINDS[kind][0], edgecolor=BLACK, lw=0.4, label=KINDS[kind][1]) for kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _cuboid(axes, x, width, height, colour):
    """Draws an oblique box centred at y = 0 with its front from ``x``; returns its right edge at y = 0."""
    low, high, dx, dy = -height / 2, height / 2, 0.25 * height, 0.12 * height
    front = [(x, low), (x + width, low), (x + width, high), (x, high)]
    top = [(x, high), (x + width, high), (x + width + dx, high + dy), (x + dx, high + dy)]
    side = [(x + width, low), (x + width + dx, low + dy), (x + width + dx, high + dy), (x + width, high)]
    for corners, alpha in ((front, 1.0), (top, 0.5), (side, 0.75)):
        axes.add_patch(Polygon(corners, facecolor=(colour, alpha), edgecolor=BLACK, lw=0.4))
    return x + width + dx


def _shape(channels, size):
    return rf"${channels}$" if size == 1 else rf"${channels}\times{size}^2$"


@_styled
def gallery(maps, parameters, *, box=25.0):
    """Maps of several simulations: a row per suite, a column per simulation.

    ``maps`` is a dict of suite → ``(K, n, n)`` densities in (Msun/h)/(Mpc/h)^2, ``parameters`` is ``(K, 6)``, ``box``
    the side in Mpc/h.
    """
    columns = len(parameters)
    side = (PAGE - 0.9) / columns
    figure = _figure(PAGE, len(maps) * side + 0.3)
    grid = figure.subplots(len(maps), columns, squeeze=False)
    norm = _density_norm(np.stack(list(maps.values())))
    for row, (suite, stack) in zip(grid, maps.items(), strict=True):
        row[0].set_ylabel(suite_label(suite))
        for axes, density in zip(row, stack, strict=True):
            image = _density(axes, density, norm, box)
    for axes, values in zip(grid[0], parameters, strict=True):
        pairs = zip(theta.COSMOLOGICAL, values, strict=False)
        axes.set_title(", ".join(f"{theta.LABELS[name]} = {value:.2f}" for name, value in pairs))
    _scale_bar(grid[-1, 0], box)
    figure.colorbar(image, ax=grid, label=f"surface density {DENSITY_UNIT}", aspect=30, pad=0.01)
    return figure


@_styled
def cuts(panels, *, box=25.0):
    """One map under every cut; ``panels`` is a list of ``(Case, (n, n) density)``.

    A k_max cut rings around the densest pixels; what becomes negative is drawn in one flat colour.
    """
    rows = -(-len(panels) // (5 if len(panels) <= 15 else 7))
    columns = -(-len(panels) // rows)
    side = (PAGE - 0.9) / max(columns, 5)
    figure = _figure(side * columns + 0.9, rows * (side + 0.25) + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    norm = _density_norm(next((density for case, density in panels if not case.cuts), panels[0][1]))
    for axes, (case, density) in zip(grid.flat, panels, strict=False):
        image = _density(axes, density, norm, box)
        title = "\n".join(cut.label for cut in case.cuts) or case.label
        axes.set_title(title if columns <= 5 else title.replace(", ", ",\n"), fontsize=8 if columns <= 5 else 7)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    _scale_bar(grid[0, 0], box)
    figure.colorbar(image, ax=grid, label=f"surface density {DENSITY_UNIT}", aspect=30, pad=0.01)
    if any(np.min(density) < 0 for _, density in panels):
        label = "negative density (ringing of the sharp filter)"
        handle = Patch(facecolor=NEGATIVE, edgecolor=BLACK, lw=0.4, label=label)
        figure.legend(handles=[handle], loc="outside lower center")
    return figure


def _density_norm(densities):
    """Logarithmic from the 0.1st to the 99.9th percentile of the positive pixels."""
    positive = densities[densities > 0]
    return LogNorm(*np.percentile(positive, (0.1, 99.9)))


def _density(axes, density, norm, box):
    axes.set(xticks=[], yticks=[])
    colours = mpl.colormaps[DENSITY_MAP].with_extremes(bad=NEGATIVE)
    masked = np.ma.masked_less_equal(density, 0)
    return axes.imshow(masked, cmap=colours, norm=norm, extent=(0, box, 0, box))


def _scale_bar(axes, box, length=5.0):
    start, outline = 0.06 * box, [withStroke(linewidth=1.8, foreground="black")]
    bar = {"color": "white", "lw": 1.5, "solid_capstyle": "butt", "path_effects": [withStroke(linewidth=2.7)]}
    axes.plot([start, start + length], [start, start], **bar)
    label = rf"{length:g} ${{\rm Mpc}}/h$"
    axes.text(start, 0.12 * box, label, color="white", fontsize=7, path_effects=outline)


@_styled
def truth_prediction(truth, mean, sigma, *, suite, r2):
    """Predicted against true parameters with error bars, a panel per parameter.

    ``truth``, ``mean`` and ``sigma`` are ``(N, 6)`` in physical units; ``r2`` is a dict of name → (value, low, high).
    """
    figure = _figure(PAGE, 3.5)
    colour, marker = SUITES[suite]
    limits = np.stack(theta.ranges(suite), axis=1)
    panels = zip(figure.subplots(2, 3).flat, theta.NAMES, theta.meaningful(suite), strict=True)
    for column, (axes, name, meaningful) in enumerate(panels):
        axes.plot(limits[column], limits[column], color=BLACK, lw=0.8, zorder=3)
        axes.errorbar(
            truth[:, column],
            mean[:, column],
            sigma[:, column],
            fmt=marker,
            color=colour if meaningful else GREY,
            markersize=3,
            elinewidth=0.6,
            alpha=0.75,
        )
        value, low, high = r2[name]
        axes.set_title(f"{theta.LABELS[name]}:  $R^2 = {value:.3f}$  $[{low:.3f}, {high:.3f}]$")
        axes.set_xlabel("true" if meaningful else "true, without effect in this suite")
        axes.set_ylabel("predicted")
    return figure


@_styled
def r2_against_kmax(rows, k_nyquist, k_corner):
    """R² of the cosmological parameters against k_max in h/Mpc; the uncut maps as a band.

    ``rows`` are dicts with ``suite``, ``case``, ``parameter``, ``r2``, ``low``, ``high``.
    """
    figure = _figure(PAGE, 2.3)
    panels = figure.subplots(1, len(theta.COSMOLOGICAL), sharex=True)
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    cutoffs = {cut.threshold for row in rows if (cut := cases.parse(row["case"]).only) and cut.kind == "kmax"}
    for axes, name in zip(panels, theta.COSMOLOGICAL, strict=True):
        _originals(axes, rows, name, band=True)
        _curves(axes, rows, name, "kmax")
        axes.set_xlabel(r"$k_{\rm max}$  $(h/{\rm Mpc})$")
        axes.set_ylabel(f"$R^2$ of {theta.LABELS[name]}")
        axes.set_xscale("log")
        for k, label, side in ((k_nyquist, "Nyquist", "right"), (k_corner, "corner", "left")):
            axes.axvline(k, color=GREY, lw=0.7, ls=":")
            axes.text(k, 1.02, label, color=GREY, ha=side, fontsize=7, transform=axes.get_xaxis_transform())
    ends = [*cutoffs, k_corner]
    axes.set_xlim(min(ends) / 1.3, max(ends) * 1.3)
    axes.xaxis.set_major_locator(FixedLocator(sorted(cutoffs)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    handles = [*_suite_handles(suites), Line2D([], [], color=BLACK, lw=0.8, ls="-.", label="uncut, with interval")]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


@_styled
def r2_against_density(rows, omega_m=0.3):
    """R² of the cosmological parameters against the density threshold: above it cut on the left, below it on the right.

    ``rows`` as in ``r2_against_kmax``. The upper axis has the threshold over the mean density at ``omega_m``.
    """
    mean = cases.MEAN_SURFACE_DENSITY * omega_m
    figure = _figure(PAGE, 3.4)
    grid = figure.subplots(len(theta.COSMOLOGICAL), 2, sharex="col", sharey="row")
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    for column, (kind, title) in enumerate((("max", "pixels above are cut"), ("min", "pixels below are cut"))):
        parsed = [cut for row in rows if (cut := cases.parse(row["case"]).only) and cut.kind == kind]
        thresholds = [cut.threshold for cut in parsed] or [mean]
        for axes, name in zip(grid[:, column], theta.COSMOLOGICAL, strict=True):
            _originals(axes, rows, name)
            _curves(axes, rows, name, kind)
            axes.set_xscale("log")
            axes.set_xlim(min(thresholds) / 1.6, max(thresholds) * 1.6)
        limits = np.array(axes.get_xlim())
        _one_two_five(axes.xaxis, limits, lambda x, _: f"{x / 1e11:g}")
        axes.set_xlabel(rf"threshold, {title}  $[10^{{11}}\,(M_\odot/h)\,/\,({{\rm Mpc}}/h)^2]$")
        upper = grid[0, column].secondary_xaxis("top", functions=(lambda x: x / mean, lambda x: x * mean))
        _one_two_five(upper.xaxis, limits / mean, lambda x, _: f"{x:g}")
        upper.set_xlabel(rf"$\rho/\bar\rho$ at {theta.LABELS['omega_m']} = {omega_m:g}")
    for axes, name in zip(grid[:, 0], theta.COSMOLOGICAL, strict=True):
        axes.set_ylabel(f"$R^2$ of {theta.LABELS[name]}")
    fills = [
        Line2D([], [], color=BLACK, ls=line, marker="o", fillstyle=marker_fill, label=f"{fill} fill")
        for fill, (line, marker_fill) in FILLS.items()
    ]
    handles = [*_suite_handles(suites), *fills, Line2D([], [], color=BLACK, lw=0.8, ls="-.", label="uncut")]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _one_two_five(axis, limits, formatter):
    """Labels at 1, 2 and 5 of every decade within ``limits``, however few these are."""
    first, last = np.log10(limits)
    decades = 10.0 ** np.arange(np.floor(first), np.ceil(last) + 1)
    axis.set_major_locator(FixedLocator(np.outer(decades, (1, 2, 5)).ravel()))
    axis.set_major_formatter(FuncFormatter(formatter))
    axis.set_minor_locator(FixedLocator(np.outer(decades, range(1, 10)).ravel()))
    axis.set_minor_formatter(NullFormatter())


def _originals(axes, rows, name, *, band=False):
    """A horizontal line per suite at the R² of the uncut maps, with its interval as a band if wanted."""
    for row in rows:
        if row["case"] == "original" and row["parameter"] == name and np.isfinite(row["r2"]):
            colour, _ = SUITES[row["suite"]]
            axes.axhline(row["r2"], color=colour, lw=0.8, ls="-.")
            if band:
                axes.axhspan(row["low"], row["high"], color=colour, alpha=0.15, lw=0)


def _curves(axes, rows, name, kind):
    """R² against the threshold of all single cuts of ``kind``: a line per suite and fill, a little apart in x."""
    curves = {}
    for row in rows:
        cut = cases.parse(row["case"]).only
        if cut and cut.kind == kind and row["parameter"] == name and np.isfinite(row["r2"]):
            point = (cut.threshold, row["r2"], row["low"], row["high"], 2 * (row.get("seeds") or 0))
            curves.setdefault((row["suite"], cut.fill), []).append(point)
    if not curves:
        axes.text(0.5, 0.4, "no such case in this profile", ha="center", color=GREY, transform=axes.transAxes)
    for index, ((suite, fill), points) in enumerate(curves.items()):
        x, value, low, high, of_seeds = np.array(sorted(points)).T
        x = x * 1.02 ** (index - (len(curves) - 1) / 2)
        colour, marker = SUITES[suite]
        line, marker_fill = FILLS.get(fill, FILLS["clamp"])
        axes.vlines(x, value - of_seeds, value + of_seeds, color=colour, alpha=0.35, lw=3.5)
        axes.errorbar(
            x,
            value,
            np.maximum([value - low, high - value], 0),
            color=colour,
            marker=marker,
            ls=line,
            fillstyle=marker_fill,
            capsize=1.5,
            elinewidth=0.7,
        )


def _suite_handles(suites):
    styles = ((suite, *SUITES[suite]) for suite in suites)
    return [Line2D([], [], color=colour, marker=marker, label=suite_label(suite)) for suite, colour, marker in styles]


@_styled
def attribution_maps(density, attributions, *, parameters=theta.COSMOLOGICAL, box=25.0):
    """One map and what each method attributes to its pixels: a row per parameter, a column per method, one scale.

    ``density`` is ``(n, n)``; ``attributions`` is a dict of method → ``(P, n, n)``, signed, in normalised parameters
    per pixel (Saliency: per pixel and standard deviation of the scaled maps).
    """
    side = (PAGE - 0.9) / (len(attributions) + 1)
    figure = _figure(PAGE, len(parameters) * side + 0.2)
    grid = figure.add_gridspec(len(parameters), len(attributions) + 1)
    left = figure.add_subplot(grid[0, 0], title="map")
    image = _density(left, density, _density_norm(density), box)
    _scale_bar(left, box)
    below = figure.add_subplot(grid[-1, 0], frame_on=False, xticks=[], yticks=[])
    bar = below.inset_axes((0.02, 0.9, 0.96, 0.06))
    figure.colorbar(image, cax=bar, orientation="horizontal", label=f"surface density\n{DENSITY_UNIT}")
    norm = _signed_norm(np.stack(list(attributions.values())))
    panels = []
    for column, (method, stack) in enumerate(attributions.items(), start=1):
        for row, (name, attribution) in enumerate(zip(parameters, stack, strict=True)):
            axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
            signed = axes.imshow(attribution, cmap=SIGNED_MAP, norm=norm, extent=(0, box, 0, box))
            panels.append(axes)
            if row == 0:
                axes.set_title(METHODS[method][1])
            if column == 1:
                axes.set_ylabel(theta.LABELS[name])
    _signed_bar(figure, signed, panels, "attribution (normalised parameter per pixel)")
    return figure


@_styled
def attribution_cuts(panels, *, method="integrated_gradients", parameters=theta.COSMOLOGICAL, box=25.0):
    """A map under the cuts of several cases and the attributions of their networks: a column per case.

    ``panels`` is a list of ``(Case, (n, n) density, (P, n, n) attribution)``.
    """
    columns = len(panels)
    side = min(1.6, (PAGE - 0.9) / columns)
    figure = _figure(min(PAGE, columns * side + 1.1), (len(parameters) + 1) * side + 0.45)
    grid = figure.subplots(len(parameters) + 1, columns, squeeze=False)
    norm, signed_norm = _density_norm(panels[0][1]), _signed_norm(np.stack([stack for *_, stack in panels]))
    for column, (case, density, stack) in zip(grid.T, panels, strict=True):
        image = _density(column[0], density, norm, box)
        column[0].set_title(case.label if columns <= 3 else case.label.replace(", ", ",\n"), fontsize=7)
        for axes, attribution in zip(column[1:], stack, strict=True):
            axes.set(xticks=[], yticks=[])
            signed = axes.imshow(attribution, cmap=SIGNED_MAP, norm=signed_norm, extent=(0, box, 0, box))
    grid[0, 0].set_ylabel("map")
    for axes, name in zip(grid[1:, 0], parameters, strict=True):
        axes.set_ylabel(f"{METHODS[method][1]}\n{theta.LABELS[name]}" if side > 1.2 else theta.LABELS[name])
    _scale_bar(grid[0, 0], box)
    figure.colorbar(image, ax=grid[0], label="surface density", aspect=12, pad=0.01)
    _signed_bar(figure, signed, list(grid[1:].flat), "attribution per pixel", aspect=24)
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
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _power_of_ten(value, _):
    return "0" if value == 0 else rf"${'-' if value < 0 else ''}10^{{{round(np.log10(abs(value)))}}}$"


@_styled
def attribution_against_density(bins):
    """Attribution against overdensity: per pixel above, as a share of the total below, a column per parameter.

    ``bins`` is a dict of suite → parameter → method → dict with ``centres`` ``(B,)`` in units of the mean density,
    ``area`` ``(B,)`` fractions of all pixels, ``per_pixel`` (in units of the mean over all pixels) and ``total``
    (fractions), each ``(value, low, high)`` of ``(B,)``.
    """
    suites, names = list(bins), list(next(iter(bins.values())))
    methods = list(bins[suites[0]][names[0]])
    figure = _figure(PAGE, 3.4)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for (above, below), name in zip(grid.T, names, strict=True):
        for suite in suites:
            for method, table in bins[suite].get(name, {}).items():
                _banded(above, table["centres"], table["per_pixel"], suite, method)
                _banded(below, table["centres"], np.multiply(table["total"], 100), suite, method)
        table = bins[suites[0]][name][methods[0]]
        area = np.where(table["area"], np.multiply(table["area"], 100), np.nan)
        below.stairs(area, _edges(table["centres"]), color=GREY, lw=1.2, baseline=None)
        above.set(title=theta.LABELS[name], xscale="log", yscale="log")
        below.set_xlabel(r"$\rho/\bar\rho$")
        for axes in (above, below):
            axes.axvline(1, color=GREY, lw=0.6, ls=":")
    _one_two_five(grid[0, 0].yaxis, grid[0, 0].get_ylim(), lambda x, _: f"{x:g}")
    grid[0, 0].set_ylabel("attribution per pixel\n(mean pixel = 1)")
    grid[1, 0].set_ylabel("share of the total (%)")
    lines = [Line2D([], [], color=BLACK, ls=METHODS[m][0], label=METHODS[m][1]) for m in methods]
    handles = [*_suite_handles(suites), *lines, Line2D([], [], color=GREY, lw=1.2, label="share of the area")]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


@_styled
def attribution_scales(fourier, rows, k_nyquist):
    """Attribution and density in Fourier space above, R² against k_max below, on one axis of k in h/Mpc.

    ``fourier`` is a dict of suite → parameter → method → dict with ``k`` ``(B,)`` and ``correlation``, (value, low,
    high) of ``(B,)``; ``rows`` as in ``r2_against_kmax``.
    """
    suites, names = list(fourier), list(next(iter(fourier.values())))
    methods = list(fourier[suites[0]][names[0]])
    figure = _figure(PAGE, 3.6)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for (above, below), name in zip(grid.T, names, strict=True):
        for suite in suites:
            for method, table in fourier[suite][name].items():
                _banded(above, table["k"], table["correlation"], suite, method)
        above.axhline(0, color=GREY, lw=0.6, ls=":")
        above.set(title=theta.LABELS[name], xscale="log", ylim=(-1.05, 1.05))
        _originals(below, rows, name, band=True)
        _curves(below, rows, name, "kmax")
        below.set_xlabel(r"$k$ or $k_{\rm max}$  $(h/{\rm Mpc})$")
        for axes in (above, below):
            axes.axvline(k_nyquist, color=GREY, lw=0.7, ls=":")
    k = fourier[suites[0]][names[0]][methods[0]]["k"]
    limits = np.array([k[0] / 1.2, k[-1] * 1.2])
    above.set_xlim(limits)
    _one_two_five(below.xaxis, limits, lambda value, _: f"{value:g}")
    grid[0, 0].set_ylabel("correlation of the attribution's\nmagnitude with density")
    grid[1, 0].set_ylabel("$R^2$")
    figure.legend(handles=_suite_and_method_handles(suites, methods), loc="outside upper center", ncols=6)
    return figure


@_styled
def attribution_profiles(around):
    """|attribution| against the distance from void centres (top) and haloes (bottom), a column per parameter.

    ``around`` is a dict of suite → parameter → method → "voids" or "halos" → dict with ``r`` ``(B,)`` in Mpc/h and
    ``profile``, (value, low, high) of ``(B,)`` in units of the map's mean.
    """
    suites, names = list(around), list(next(iter(around.values())))
    methods = list(around[suites[0]][names[0]])
    figure = _figure(PAGE, 3.6)
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


@_styled
def sanity(cascade, curves):
    """Randomised layers, deletion and insertion of one suite: a row per parameter.

    ``cascade`` is a dict of layer → parameter → method → rank correlation, from the output to the input; ``curves``
    of parameter → dict with ``fractions`` ``(F,)``, and ``deletion`` and ``insertion``: method or "random" → R²
    ``(F,)``, on an axis that is even in 1 / (2 - R²).
    """
    names = list(curves)
    methods = [method for method in METHODS if method in curves[names[0]]["deletion"]]
    figure = _figure(PAGE, 1.6 * len(names) + 0.6)
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
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
            axes.xaxis.set_major_locator(FixedLocator([0, 1, 10, 100]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
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
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _suite_and_method_handles(suites, methods):
    lines = [Line2D([], [], color=BLACK, ls=METHODS[method][0], label=METHODS[method][1]) for method in methods]
    return [*_suite_handles(suites), *lines]


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


@_styled
def not_simulated():
    """In place of a figure of the simulator, where the maps were not simulated."""
    figure = _figure(PAGE, 0.5)
    figure.text(0.5, 0.5, "for simulated maps only", ha="center", va="center", color=GREY)
    return figure


@_styled
def twin(published, suites, *, box=25.0):
    """A published map of log10 density ``(n, n)``, ours of the same simulation, and how far they agree by scale.

    ``suites`` is suite → dict of ``log10`` (n, n), ``k`` (B,), ``correlation`` and ``power`` (B,). The first is shown.
    """
    figure = _figure(PAGE, 2.5)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
    first = next(iter(suites.values()))
    densities = [10 ** np.asarray(log10, dtype=float) for log10 in (published, first["log10"])]
    norm = _density_norm(np.stack(densities))
    for axes, density, title in zip((left, middle), densities, ("published, digitised", "the twin"), strict=True):
        image = _density(axes, density, norm, box)
        axes.set_title(title)
    _scale_bar(left, box)
    label = f"surface density {DENSITY_UNIT}"
    figure.colorbar(image, ax=[left, middle], label=label, orientation="horizontal", aspect=40, pad=0.02)
    for (suite, one), line in zip(suites.items(), ("-", "--"), strict=True):
        label = "gravity alone" if theta.is_nbody(suite) else "with baryons"
        right.plot(one["k"], one["correlation"], color=BLUE, ls=line, label=f"correlation, {label}")
        right.plot(one["k"], one["power"], color=ORANGE, ls=line, label=f"power ratio, {label}")
    right.axhline(1, color=GREY, lw=0.6)
    k = np.asarray(first["k"])
    right.set(xscale="log", xlabel=r"$k$  $(h/{\rm Mpc})$", ylabel="twin and published map", ylim=(0, 2.2))
    right.set_xlim(k[0], k[-1])
    _one_two_five(right.xaxis, np.array((k[0], k[-1])), lambda x, _: f"{x:g}")
    right.legend(loc="upper left", fontsize=7)
    return figure


@_styled
def power_spectrum(gravity):
    """P(k) of the simulator's gravity with its scatter, of a finer run, and of theory; ratios below.

    ``gravity`` holds ``k`` (B,), ``power`` (seeds, B), ``converged`` (B,) of the first seed, ``linear`` and ``hmcode``
    (B,), ``k_half_nyquist`` of the particles, and ``k_resolved``, where force resolution ends; h/Mpc, (Mpc/h)^3.
    """
    figure = _figure(PAGE, 3.6)
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
        above.text(position, 1.02, label, color=GREY, ha=side, fontsize=7, transform=above.get_xaxis_transform())
    above.set(xscale="log", yscale="log", ylabel=r"$P(k)$  $({\rm Mpc}/h)^3$", xlim=(k[0], k[-1]))
    below.set(xlabel=r"$k$  $(h/{\rm Mpc})$", ylabel="ratio", ylim=(0, 1.3))
    _one_two_five(below.xaxis, np.array((k[0], k[-1])), lambda x, _: f"{x:g}")
    above.legend(loc="lower left")
    below.legend(loc="lower left", ncols=2)
    return figure


@_styled
def baryons(k, suites):
    """P(k) with baryons over P(k) of gravity alone: a row per suite, a column per astrophysical parameter.

    ``suites`` is a dict of suite → dict with ``fiducial`` (seeds, B) and ``varied``: parameter → ``(2, B)``, at its
    lowest and highest value, for the first seed.
    """
    names = list(next(iter(suites.values()))["varied"])
    figure = _figure(PAGE, 3.4)
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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
    return figure


SEARCHES = {"full": (BLUE, "-", "full trials"), "halving": (VERMILION, "--", "successive halving")}
HYPERPARAMETERS = {"max_lr": "learning rate", "weight_decay": "weight decay", "dropout": "dropout", "hidden": "width"}


@_styled
def tuning(studies):
    """How far each trial stayed above the best one of its study, and which hyperparameters mattered.

    ``studies`` is a dict of suite → list of records with ``trials`` (dicts of number, state and losses) and
    ``importances`` (hyperparameter → share, or nothing). Without any trial, the figure says so.
    """
    studies = {suite: [one for one in records if one["trials"]] for suite, records in studies.items()}
    if not any(studies.values()):
        figure = _figure(PAGE, 0.5)
        figure.text(0.5, 0.5, "no hyperparameters were searched in this run", ha="center", va="center", color=GREY)
        return figure
    figure = _figure(PAGE, 2.4)
    history, shares = figure.subplots(1, 2)
    for offset, (suite, records) in zip(np.linspace(-0.15, 0.15, len(studies)), studies.items(), strict=True):
        colour, marker = SUITES[suite]
        for state, face in (("complete", colour), ("pruned", "none")):
            points = np.array([point for one in records for point in _above_best(one, state)]).reshape(-1, 2)
            history.plot(points[:, 0] + 1 + offset, points[:, 1], marker, color=colour, mfc=face, ms=3.5, mew=0.7)
        known = [one["importances"] for one in records if one["importances"]]
        for position, name in enumerate(HYPERPARAMETERS):
            values = [100 * one[name] for one in known if name in one]
            place = position + 1.5 * offset
            shares.plot(np.full(len(values), place), values, marker, color=colour, mfc="none", ms=3, mew=0.6, alpha=0.6)
            if values:
                shares.plot([place - 0.1, place + 0.1], [np.mean(values)] * 2, color=colour, lw=2.5)
    history.set(xlabel="trial", ylabel="validation loss above the best", yscale="symlog")
    history.xaxis.get_major_locator().set_params(integer=True)
    history.yaxis.set_major_locator(FixedLocator([0, 1, 2, 5, 10, 20]))
    history.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    history.axhline(0, color=GREY, lw=0.6)
    shares.set(ylabel="importance (per cent)", ylim=(-3, 103), xticks=range(len(HYPERPARAMETERS)))
    shares.set_xticklabels(HYPERPARAMETERS.values())
    shares.xaxis.set_minor_locator(NullLocator())
    handles = [
        Line2D([], [], marker=SUITES[suite][1], color=SUITES[suite][0], ls="", label=suite_label(suite))
        for suite in studies
    ] + [Line2D([], [], marker="o", color=BLACK, mfc="none", ls="", label="stopped early")]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _above_best(study, state):
    """[(number, loss - the lowest of the trials that were not stopped), ...] of the trials in ``state``."""
    best = {trial["number"]: min(trial["losses"]) for trial in study["trials"] if trial["losses"]}
    lowest = min(best[trial["number"]] for trial in study["trials"] if trial["state"] == "complete")
    return [
        (trial["number"], best[trial["number"]] - lowest)
        for trial in study["trials"]
        if trial["state"] == state and trial["number"] in best
    ]


@_styled
def tuning_epochs(searches):
    """Best validation loss against epochs trained, one line a search; the band is the spread of the full ones' ends.

    ``searches`` are dicts of kind (a key of ``SEARCHES``), epochs (all that were trained) and best: [[epochs, loss],
    ...], where the best loss fell.
    """
    figure = _figure(PAGE, 2.6)
    axes = figure.subplots()
    for search in searches:
        if search["best"]:
            colour, line, label = SEARCHES[search["kind"]]
            epochs, losses = np.array([*search["best"], [search["epochs"], search["best"][-1][1]]]).T
            axes.step(epochs, losses, where="post", color=colour, ls=line, label=label)
            axes.plot(epochs[-1], losses[-1], "o", color=colour)
    ends = [search["best"][-1][1] for search in searches if search["kind"] == "full" and search["best"]]
    if ends:
        axes.axhspan(min(ends), max(ends), color=SEARCHES["full"][0], alpha=0.15, lw=0)
    reached = [search["best"][-1][1] for search in searches if search["best"]]
    axes.set(xscale="log", xlabel="epochs trained", ylabel="best validation loss")
    if reached:
        axes.set_ylim(min(reached) - 0.2, max(reached) + 3)
    unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(unique.values(), unique.keys(), loc="upper right")
    return figure

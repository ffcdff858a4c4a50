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
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from camelsight.ground import cases, theta
from camelsight.ground.cmd import BOX
from camelsight.ground.fields import FIELDS, TOTAL
from camelsight.report.tables import suite_label

PAGE = 7.0  # width in inches
PASSES = 3  # of the layout around images; one more moves nothing
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
    "figure.autolayout": False,  # with which None would be an engine
    "figure.constrained_layout.use": False,
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
KINDS = {
    "input": (GREY, "map"),
    "conv": (SKY, "convolutions"),
    "dense": (ORANGE, "fully connected"),
    "output": (GREEN, "means and standard deviations"),
}
DENSITY_MAP, NEGATIVE, SIGNED_MAP = "magma", SKY, "RdBu_r"
DENSITY_UNIT = r"$(M_\odot/h)\,/\,({\rm Mpc}/h)^2$"


class _StyledFigure(Figure):
    """Draws and saves with the style that it was made with: Matplotlib reads some settings only then."""

    def draw(self, renderer):
        with mpl.rc_context(STYLE):
            super().draw(renderer)

    def savefig(self, *args, **kwargs):
        self.settle()
        with mpl.rc_context(STYLE):
            super().savefig(*args, **kwargs)

    def settle(self):
        """Lay it out, for good: every format that it is saved in shows the same.

        Matplotlib does so anew for each, and in one pass, after which images, of fixed aspect, are not in their place.
        """
        engine = self.get_layout_engine()
        passes = PASSES if any(axes.get_aspect() != "auto" for axes in self.axes) else 1
        with mpl.rc_context(STYLE):
            for _ in range(passes if engine and self.axes else 0):
                engine.execute(self)
            self.set_layout_engine(None)


def _styled(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapper


def _figure(width, height):
    return _StyledFigure(figsize=(width, height), layout="constrained")


@_styled
def message(text):
    """In place of a figure that a run cannot have: why."""
    figure = _figure(PAGE, 0.5)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    return figure


def _legend(figure, handles):
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


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


def _by_field(figure, fields):
    """(part of ``figure``, channel, field) for each field, one below the other."""
    parts = [figure] if len(fields) == 1 else figure.subfigures(len(fields), 1)
    return zip(parts, range(len(fields)), fields, strict=True)


def _field_label(field, separator=" "):
    """What a colour bar says of a field and its unit, which ``separator`` is between."""
    if field == TOTAL:
        return f"surface density{separator}{DENSITY_UNIT}"
    return f"{FIELDS[field].words}{separator}{FIELDS[field].unit}".strip()


@_styled
def gallery(maps, parameters, *, fields=(TOTAL,)):
    """Maps of several simulations: a row per field and suite, a column per simulation.

    ``maps`` is a dict of suite → ``(K, C, n, n)``, a channel per field, ``parameters`` is ``(K, 6)``.
    """
    columns = len(parameters)
    side = (PAGE - 0.9) / columns
    figure = _figure(PAGE, len(fields) * (len(maps) * side + 0.3))
    for part, channel, field in _by_field(figure, fields):
        grid = part.subplots(len(maps), columns, squeeze=False)
        norm = _density_norm(np.stack([stack[:, channel] for stack in maps.values()]), field)
        for row, (suite, stack) in zip(grid, maps.items(), strict=True):
            row[0].set_ylabel(suite_label(suite))
            for axes, density in zip(row, stack[:, channel], strict=True):
                image = _density(axes, density, norm)
        for axes, values in zip(grid[0], parameters, strict=True):
            pairs = zip(theta.COSMOLOGICAL, values, strict=False)
            axes.set_title(", ".join(f"{theta.LABELS[name]} = {value:.2f}" for name, value in pairs))
        _scale_bar(grid[-1, 0])
        label = _field_label(field, " " if len(fields) == 1 else "\n")
        part.colorbar(image, ax=grid, label=label, aspect=30, pad=0.01)
    return figure


@_styled
def cuts(panels, *, fields=(TOTAL,)):
    """One map under every cut; ``panels`` is a list of ``(Case, (C, n, n) map)``, a channel per field.

    A k_max cut rings around the densest pixels; what becomes negative is drawn in one flat colour.
    """
    rows = -(-len(panels) // (5 if len(panels) <= 15 else 7))
    columns = -(-len(panels) // rows)
    side = (PAGE - 0.9) / max(columns, 5)
    legend = 0.0 if fields == (TOTAL,) else 0.15  # the layout gives it too little room
    figure = _figure(side * columns + 0.9, len(fields) * (rows * (side + 0.25) + 0.3) + legend)
    for part, channel, field in _by_field(figure, fields):
        grid = part.subplots(rows, columns, squeeze=False)
        norm = _density_norm(next((maps for case, maps in panels if not case.cuts), panels[0][1])[channel], field)
        for axes, (case, maps) in zip(grid.flat, panels, strict=False):
            image = _density(axes, maps[channel], norm)
            title = "\n".join(cut.label for cut in case.cuts) or case.label
            axes.set_title(title if columns <= 5 else title.replace(", ", ",\n"), fontsize=8 if columns <= 5 else 7)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        _scale_bar(grid[0, 0])
        label = _field_label(field, " " if len(fields) == 1 else "\n")
        part.colorbar(image, ax=grid, label=label, aspect=30, pad=0.01)
    unsigned = [channel for channel, field in enumerate(fields) if FIELDS[field].least != "any"]
    if any(np.min(maps[unsigned], initial=0) < 0 for _, maps in panels):
        what = "density" if all(FIELDS[fields[channel]].is_mass for channel in unsigned) else "pixels"
        label = f"negative {what} (ringing of the sharp filter)"
        handle = Patch(facecolor=NEGATIVE, edgecolor=BLACK, lw=0.4, label=label)
        figure.legend(handles=[handle], loc="outside lower center")
    return figure


def _density_norm(densities, field=TOTAL):
    """Logarithmic from the 0.1st to the 99.9th percentile of the positive pixels; for a signed field both ways."""
    positive = densities[densities > 0]
    if FIELDS[field].least == "any" and np.any(densities < 0):
        low, high = np.percentile(np.abs(densities), (10, 99.9))
        return SymLogNorm(low or 1.0, vmin=-high, vmax=high)
    return LogNorm(*np.percentile(positive, (0.1, 99.9))) if len(positive) else LogNorm(1, 10)


def _image(axes, values, norm, colours=SIGNED_MAP):
    axes.set(xticks=[], yticks=[])
    return axes.imshow(values, cmap=colours, norm=norm, extent=(0, BOX, 0, BOX))


def _density(axes, density, norm):
    if isinstance(norm, SymLogNorm):
        return _image(axes, density, norm)
    colours = mpl.colormaps[DENSITY_MAP].with_extremes(bad=NEGATIVE)
    masked = np.ma.masked_less(np.where(density == 0, norm.vmin, density), 0)  # an empty pixel is as dark as any
    return _image(axes, masked, norm, colours)


def _scale_bar(axes, length=5.0):
    start, outline = 0.06 * BOX, [withStroke(linewidth=1.8, foreground="black")]
    bar = {"color": "white", "lw": 1.5, "solid_capstyle": "butt", "path_effects": [withStroke(linewidth=2.7)]}
    axes.plot([start, start + length], [start, start], **bar)
    label = rf"{length:g} ${{\rm Mpc}}/h$"
    axes.text(start, 0.12 * BOX, label, color="white", fontsize=7, path_effects=outline)


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
        style = {"fmt": marker, "color": colour if meaningful else GREY, "markersize": 3, "elinewidth": 0.6}
        axes.errorbar(*(values[:, column] for values in (truth, mean, sigma)), **style, alpha=0.75)
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
    cutoffs = {cut.threshold for cut in _single_cuts(rows, "kmax").values()}
    for axes, name in zip(panels, theta.COSMOLOGICAL, strict=True):
        _originals(axes, rows, name, band=True)
        _curves(axes, rows, name, "kmax")
        axes.set_xlabel(r"$k_{\rm max}$  $(h/{\rm Mpc})$")
        axes.set_ylabel(f"$R^2$ of {theta.LABELS[name]}")
        axes.set_xscale("log")
        for k, label, side in ((k_nyquist, "Nyquist", "right"), (k_corner, "corner", "left")):
            axes.axvline(k, color=GREY, lw=0.7, ls=":")
            _above(axes, k, label, side)
    ends = [*cutoffs, k_corner]
    axes.set_xlim(min(ends) / 1.3, max(ends) * 1.3)
    axes.xaxis.set_major_locator(FixedLocator(sorted(cutoffs)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    handles = [*_suite_handles(suites), Line2D([], [], color=BLACK, lw=0.8, ls="-.", label="uncut, with interval")]
    _legend(figure, handles)
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
        thresholds = [cut.threshold for cut in _single_cuts(rows, kind).values()] or [mean]
        for axes, name in zip(grid[:, column], theta.COSMOLOGICAL, strict=True):
            _originals(axes, rows, name)
            _curves(axes, rows, name, kind)
            axes.set_xscale("log")
            axes.set_xlim(min(thresholds) / 1.6, max(thresholds) * 1.6)
        limits = np.array(axes.get_xlim())
        _one_two_five(axes.xaxis, limits, lambda x, _: f"{x / 1e11:g}")
        axes.set_xlabel(rf"threshold, {title}  $[10^{{11}}\,(M_\odot/h)\,/\,({{\rm Mpc}}/h)^2]$")
        upper = grid[0, column].secondary_xaxis("top", functions=(lambda x: x / mean, lambda x: x * mean))
        _one_two_five(upper.xaxis, limits / mean)
        upper.set_xlabel(rf"$\rho/\bar\rho$ at {theta.LABELS['omega_m']} = {omega_m:g}")
    for axes, name in zip(grid[:, 0], theta.COSMOLOGICAL, strict=True):
        axes.set_ylabel(f"$R^2$ of {theta.LABELS[name]}")
    fills = [
        Line2D([], [], color=BLACK, ls=line, marker="o", fillstyle=marker_fill, label=f"{fill} fill")
        for fill, (line, marker_fill) in FILLS.items()
    ]
    handles = [*_suite_handles(suites), *fills, Line2D([], [], color=BLACK, lw=0.8, ls="-.", label="uncut")]
    _legend(figure, handles)
    return figure


def _one_two_five(axis, limits, formatter="{x:g}"):
    """Labels at 1, 2 and 5 of every decade within ``limits``, however few these are."""
    first, last = np.log10(limits)
    decades = 10.0 ** np.arange(np.floor(first), np.ceil(last) + 1)
    axis.set_major_locator(FixedLocator(np.outer(decades, (1, 2, 5)).ravel()))
    axis.set_major_formatter(formatter)
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
    curves, cuts = {}, _single_cuts(rows, kind)
    for row in rows:
        if row["case"] in cuts and row["parameter"] == name and np.isfinite(row["r2"]):
            cut = cuts[row["case"]]
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
        style = {"color": colour, "marker": marker, "ls": line, "fillstyle": marker_fill}
        _intervals(axes, x, value, low, high, **style, capsize=1.5, elinewidth=0.7)


def _intervals(axes, x, value, low, high, **style):
    axes.errorbar(x, value, np.maximum([value - low, high - value], 0), **style)


def _above(axes, x, label, side):
    """A grey ``label`` on top of the axes, on one ``side`` of ``x``."""
    axes.text(x, 1.02, label, color=GREY, ha=side, fontsize=7, transform=axes.get_xaxis_transform())


def _single_cuts(rows, kind):
    return cases.single([row["case"] for row in rows], kind)


def _suite_handles(suites, **style):
    styles = ((suite_label(suite), *SUITES[suite]) for suite in suites)
    return [Line2D([], [], color=colour, marker=marker, label=label, **style) for label, colour, marker in styles]

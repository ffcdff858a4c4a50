"""Where a result comes from: profile, data, versions, and the stage of each figure and table."""

SOURCES = {
    True: "CAMELS' universes, simulated again by this package",
    False: "maps of the CAMELS Multifield Dataset",
}
TWIN = "The maps are CAMELS' universes, simulated again: these are not results on its own maps."
_LABELS = {  # stage → labels of the figures and tables of the paper that show its results
    "cut": "gallery cuts",
    "train": "network",
    "evaluate": "truth_prediction calibration calibrationtable r2_kmax r2_density r2 costs",
    "attribute": (
        "attribution_maps attribution_density attribution_profiles attribution_scales attribution_cuts "
        "attribution fieldshares"
    ),
    "sanity": "checks sanity baselines",
    "universe": "statistics twin power_spectrum baryons",
    "tune": "tuning",
    "figures": "tuning_epochs",
    "transfer": (
        "fieldstable transfer transfer_omega_m transfer_sigma_8 crossed smoothing probes probetable "
        "generalisation generalisationfigure"
    ),
    "baseline": "rivals rivaltable rival_likelihood scales",
    "tabulate": "parameters made",
}
MADE_BY = {label: stage for stage, labels in _LABELS.items() for label in labels.split()}
SEVERAL = ", "


def common(versions):
    """One record of versions by package from those of many networks; all of what differs."""
    return {name: SEVERAL.join(dict.fromkeys(one.get(name, "none") for one in versions)) for name in versions[0]}


def describe(*, profile, twin, seed, versions):
    """Macro name → text for the first page and the appendix; ``twin`` says that this package simulated the maps."""
    facts = {"Profile": profile, "IsTwin": str(int(twin)), "DataSource": SOURCES[bool(twin)], "Seed": str(seed)}
    return facts | {f"Version{name.capitalize()}": version for name, version in versions.items()}

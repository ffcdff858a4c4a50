"""Where a result comes from: profile, data, versions, and the stage of each figure and table."""

SOURCES = {
    True: "CAMELS' universes, simulated again by this package",
    False: "maps of the CAMELS Multifield Dataset",
}
TWIN = "The maps are CAMELS' universes, simulated again: these are not results on its own maps."
MADE_BY = {  # label of a figure or table of the paper → the stage whose results it shows
    "gallery": "cut",
    "cuts": "cut",
    "network": "train",
    "truth_prediction": "evaluate",
    "calibration": "evaluate",
    "calibrationtable": "evaluate",
    "r2_kmax": "evaluate",
    "r2_density": "evaluate",
    "r2": "evaluate",
    "costs": "evaluate",
    "attribution_maps": "attribute",
    "attribution_density": "attribute",
    "attribution_profiles": "attribute",
    "attribution_scales": "attribute",
    "attribution_cuts": "attribute",
    "attribution": "attribute",
    "fieldshares": "attribute",
    "checks": "sanity",
    "sanity": "sanity",
    "baselines": "sanity",
    "statistics": "universe",
    "twin": "universe",
    "power_spectrum": "universe",
    "baryons": "universe",
    "tuning": "tune",
    "tuning_epochs": "figures",
    "fieldstable": "transfer",
    "transfer": "transfer",
    "transfer_omega_m": "transfer",
    "transfer_sigma_8": "transfer",
    "crossed": "transfer",
    "smoothing": "transfer",
    "probes": "transfer",
    "probetable": "transfer",
    "generalisation": "transfer",
    "generalisationfigure": "transfer",
    "rivals": "baseline",
    "rivaltable": "baseline",
    "rival_likelihood": "baseline",
    "scales": "baseline",
    "parameters": "tabulate",
    "made": "tabulate",
}
SEVERAL = ", "


def common(versions):
    """One record of versions by package from those of many networks; all of what differs."""
    return {name: SEVERAL.join(dict.fromkeys(one.get(name, "none") for one in versions)) for name in versions[0]}


def describe(*, profile, twin, seed, versions):
    """Macro name → text for the first page and the appendix; ``twin`` says that this package simulated the maps."""
    facts = {"Profile": profile, "IsTwin": str(int(twin)), "DataSource": SOURCES[bool(twin)], "Seed": str(seed)}
    return facts | {f"Version{name.capitalize()}": version for name, version in versions.items()}

"""Where a result comes from: profile, commit, data, versions, hardware."""

import os
import platform
from importlib import metadata

PACKAGES = ("torch", "numpy", "camb", "captum", "optuna", "Pylians")
SOURCES = {
    True: "maps simulated by this package, not CAMELS",
    False: "maps of the CAMELS Multifield Dataset",
}
MADE_BY = {  # label of a figure or table of the paper → the stage whose results it shows
    "gallery": "cut",
    "cuts": "cut",
    "network": "train",
    "truth_prediction": "evaluate",
    "r2_kmax": "evaluate",
    "r2_density": "evaluate",
    "r2": "evaluate",
    "attribution_maps": "attribute",
    "attribution_density": "attribute",
    "attribution_profiles": "attribute",
    "attribution_scales": "attribute",
    "attribution_cuts": "attribute",
    "attribution": "attribute",
    "checks": "sanity",
    "sanity": "sanity",
    "statistics": "universe",
    "power_spectrum": "universe",
    "baryons": "universe",
    "tuning": "tune",
    "tuning_epochs": "figures",
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
    "parameters": "tabulate",
    "made": "tabulate",
}
SEVERAL = ", "


def common(environments):
    """One record of commit, dirty, versions and hardware from those of many networks; all of what differs."""

    def joined(values):
        return SEVERAL.join(dict.fromkeys(values))

    packages = environments[0]["versions"]
    return {
        "commit": joined(one["commit"] for one in environments),
        "dirty": any(one["dirty"] for one in environments),
        "versions": {name: joined(one["versions"].get(name, "none") for one in environments) for name in packages},
        "hardware": joined(one["hardware"] for one in environments),
    }


def versions(packages=PACKAGES):
    """Installed versions by package name, Python's own first."""
    return {"Python": platform.python_version()} | {package: metadata.version(package) for package in packages}


def hardware(accelerator=""):
    """One line on the machine; ``accelerator`` is the name of the GPU, empty without one."""
    cores = os.cpu_count()
    machine = f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()}, {platform.system()})"
    return f"{accelerator}, {machine}" if accelerator else machine


def describe(*, profile, commit, dirty, mock, seed, versions, hardware):
    """Macro name → text for the first page and the appendix of the paper.

    ``commit`` is a hash, several, or "unknown"; ``dirty`` says that the tree differed from it; ``mock`` that the maps
    were simulated by this package.
    """
    return {
        "Profile": profile,
        "IsMock": str(int(mock)),
        "DataSource": SOURCES[bool(mock)],
        "Commit": SEVERAL.join(one[:12] for one in commit.split(SEVERAL))
        + (" with uncommitted changes" if dirty else ""),
        "CommitShort": SEVERAL.join(one[:7] for one in commit.split(SEVERAL)) + ("+" if dirty else ""),
        "Seed": str(seed),
        "Hardware": hardware,
    } | {f"Version{name.capitalize()}": version for name, version in versions.items()}

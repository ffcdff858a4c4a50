import platform
from importlib import metadata

import pytest

from camelsight.pipeline import environment, packages
from camelsight.report import provenance, tables

FACTS = {
    "profile": "my_profile",
    "twin": True,
    "seed": 1,
    "versions": {"Python": "3.11.2", "torch": "2.13.0"},
}


def test_facts_become_macros():
    assert provenance.describe(**FACTS) == {
        "Profile": "my_profile",
        "IsTwin": "1",
        "DataSource": "CAMELS' universes, simulated again by this package",
        "Seed": "1",
        "VersionPython": "3.11.2",
        "VersionTorch": "2.13.0",
    }


def test_real_maps_are_not_called_a_twin():
    facts = provenance.describe(**FACTS | {"twin": False})
    assert facts["IsTwin"] == "0" and "simulated" not in facts["DataSource"]


def test_macros_accept_every_fact():
    facts = provenance.describe(**FACTS | {"versions": packages.versions()})
    text = tables.macros(facts)
    assert r"\newcommand{\Profile}{my\_profile}" in text and r"\newcommand{\VersionPylians}" in text


def test_versions_are_those_installed():
    assert packages.versions(("numpy",)) == {
        "Python": platform.python_version(),
        "numpy": metadata.version("numpy"),
    }
    with pytest.raises(metadata.PackageNotFoundError):
        packages.versions(("no-such-package",))


def test_the_accelerator_comes_first():
    assert environment.hardware("NVIDIA H100").startswith("NVIDIA H100, ")
    assert environment.hardware().split()[0].isdigit()

import platform
from importlib import metadata

import pytest

from camelsight.report import provenance, tables

FACTS = {
    "profile": "my_profile",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "mock": True,
    "seed": 1,
    "versions": {"Python": "3.11.2", "torch": "2.13.0"},
    "hardware": "2 CPU cores",
}


def test_facts_become_macros():
    assert provenance.describe(**FACTS) == {
        "Profile": "my_profile",
        "IsMock": "1",
        "DataSource": "maps simulated by this package, not CAMELS",
        "Commit": "0123456789ab",
        "CommitShort": "0123456",
        "Seed": "1",
        "Hardware": "2 CPU cores",
        "VersionPython": "3.11.2",
        "VersionTorch": "2.13.0",
    }


def test_the_first_page_does_not_hide_uncommitted_changes_or_a_missing_repository():
    assert provenance.describe(**FACTS | {"dirty": True})["Commit"] == "0123456789ab with uncommitted changes"
    assert provenance.describe(**FACTS | {"commit": "unknown"})["Commit"] == "unknown"


def test_real_maps_are_not_called_mock():
    facts = provenance.describe(**FACTS | {"mock": False})
    assert facts["IsMock"] == "0" and "simulated" not in facts["DataSource"]


def test_macros_accept_every_fact():
    facts = provenance.describe(**FACTS | {"versions": provenance.versions(), "hardware": provenance.hardware()})
    text = tables.macros(facts)
    assert r"\newcommand{\Profile}{my\_profile}" in text and r"\newcommand{\VersionPylians}" in text


def test_versions_are_those_installed():
    assert provenance.versions(("numpy",)) == {
        "Python": platform.python_version(),
        "numpy": metadata.version("numpy"),
    }
    with pytest.raises(metadata.PackageNotFoundError):
        provenance.versions(("no-such-package",))


def test_the_accelerator_comes_first():
    assert provenance.hardware("NVIDIA H100").startswith("NVIDIA H100, ")
    assert provenance.hardware().split()[0].isdigit()

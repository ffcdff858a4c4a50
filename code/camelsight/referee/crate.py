"""RO-Crate metadata of results/, or of an archive: what is in it, and the digests of everything it came from.

https://w3id.org/ro/crate
"""

from pathlib import Path

from rocrate.model.contextentity import ContextEntity
from rocrate.model.file import File
from rocrate.rocrate import ROCrate

from camelsight.pipeline import paths, store

LICENCE = "https://spdx.org/licenses/MIT"
PAPER = "https://arxiv.org/abs/2504.17839"
AUTHORS = "The camelsight authors"  # as CITATION.cff has them


def of_run(params, verdict, names, root=Path()):
    """JSON-LD as a dict: of the files ``names`` below ``root``, of the run that ``verdict`` is on."""
    image = store.read_json(paths.IMAGE).get("digest") if paths.IMAGE.exists() else None
    return metadata(
        {str(name): store.file_digest(root / name) for name in names},
        name=f"Results of profile {params.profile}",
        description=verdict["conclusion"]["text"],
        commit=verdict["environment"]["commit"],
        image=image,
        locks={str(p): store.file_digest(p) for p in (paths.REQUIREMENTS, paths.DVC_LOCK) if p.exists()},
        maps=_digests(verdict, "data."),
        weights=_digests(verdict, "weights."),
    )


def _digests(verdict, prefix):
    """Suite, or suite/case → digest, from the rows of T0."""
    rows = [one for one in verdict["rows"] if one["id"].startswith(prefix) and one["got"] and one["tier"] == 0]
    return {one["id"].removeprefix(prefix).replace(".", "/", 1): one["got"] for one in rows}


def metadata(files, *, name, description, commit, image, locks, maps, weights):
    """JSON-LD as a dict. ``files`` maps path → sha256; ``locks`` file → sha256, ``maps`` suite → digest, ``weights``
    suite/case → tensor digest; ``image`` is the digest of the container image, or None without one."""
    crate = ROCrate()
    crate.name, crate.description, crate.license = name, description, LICENCE
    crate.root_dataset["author"] = crate.add(
        ContextEntity(crate, "#authors", {"@type": "Organization", "name": AUTHORS})
    )
    for path, digest in files.items():
        crate.add(File(crate, dest_path=path, properties={"sha256": digest}))
    software = crate.add(
        ContextEntity(crate, "#software", {"@type": "SoftwareSourceCode", "name": "camelsight", "version": commit})
    )
    properties = {
        **{f"lock:{file}": digest for file, digest in locks.items()},
        **{f"maps:{suite}": digest for suite, digest in maps.items()},
        **{f"weights:{case}": digest for case, digest in weights.items()},
        **({"image": image} if image else {}),
    }
    values = [
        crate.add(ContextEntity(crate, f"#{key}", {"@type": "PropertyValue", "propertyID": key, "value": digest}))
        for key, digest in properties.items()
    ]
    run = crate.add(ContextEntity(crate, "#run", {"@type": "CreateAction", "name": "make paper"}))
    run["instrument"], run["object"], run["result"] = software, values, crate.root_dataset
    crate.root_dataset["isBasedOn"] = crate.add(ContextEntity(crate, PAPER, {"@type": "ScholarlyArticle"}))
    crate.root_dataset["mentions"] = run
    return crate.metadata.generate()

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
    crate = ROCrate()
    crate.name, crate.description = f"Results of profile {params.profile}", verdict["conclusion"]["text"]
    crate.license = LICENCE

    def add(identifier, kind, **properties):
        return crate.add(ContextEntity(crate, identifier, {"@type": kind} | properties))

    crate.root_dataset["author"] = add("#authors", "Organization", name=AUTHORS)
    for name in names:
        crate.add(File(crate, dest_path=str(name), properties={"sha256": store.file_digest(root / name)}))
    commit = verdict["environment"]["commit"]
    software = add("#software", "SoftwareSourceCode", name="camelsight", version=commit)
    digests = _digests(verdict).items()
    values = [add(f"#{key}", "PropertyValue", propertyID=key, value=digest) for key, digest in digests]
    run = add("#run", "CreateAction", name="make paper")
    run["instrument"], run["object"], run["result"] = software, values, crate.root_dataset
    crate.root_dataset["isBasedOn"] = add(PAPER, "ScholarlyArticle")
    crate.root_dataset["mentions"] = run
    return crate.metadata.generate()


def _digests(verdict):
    """Digests of what the run came from: the locks, maps and weights, from the rows of T0, and the image if any."""
    found = {f"lock:{path}": store.file_digest(path) for path in (paths.REQUIREMENTS, paths.DVC_LOCK) if path.exists()}
    rows = [one for one in verdict["rows"] if one["got"] and one["tier"] == 0]
    for kind, prefix in (("maps", "data."), ("weights", "weights.")):
        of_kind = [one for one in rows if one["id"].startswith(prefix)]
        found |= {f"{kind}:{one['id'].removeprefix(prefix).replace('.', '/', 1)}": one["got"] for one in of_kind}
    image = store.read_json(paths.IMAGE).get("digest") if paths.IMAGE.exists() else None
    return found | ({"image": image} if image else {})

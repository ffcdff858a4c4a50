"""RO-Crate metadata of results/: what is in it, and the digests of everything it came from. https://w3id.org/ro/crate"""

from rocrate.model.contextentity import ContextEntity
from rocrate.model.file import File
from rocrate.rocrate import ROCrate

LICENCE = "https://spdx.org/licenses/MIT"
PAPER = "https://arxiv.org/abs/2504.17839"


def metadata(files, *, name, description, commit, image, locks, maps, weights):
    """JSON-LD as a dict. ``files`` maps path → sha256; ``locks`` file → sha256, ``maps`` suite → digest, ``weights``
    suite/case → tensor digest; ``image`` is the digest of the container image, or None without one."""
    crate = ROCrate()
    crate.name, crate.description, crate.license = name, description, LICENCE
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

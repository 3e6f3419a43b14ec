"""Cuts a bill of materials to what is linked: sbom.py BOM < `cargo tree`, one "name vVERSION …" a line.

cargo-cyclonedx goes by `cargo metadata`, which also resolves optional dependencies that a feature
mentions without enabling them, such as pgrx-tests; and it writes down where the sources lie.
"""

import json
import os
import sys


def main(path):
    with open(path) as file:
        text = file.read().replace(f"path+file://{os.getcwd()}", "path+file:///cmk_encrypt")
    bom = json.loads(text)
    linked = {tuple(line.split()[:2]) for line in sys.stdin if line.strip()}
    kept = [it for it in bom["components"] if (it["name"], f"v{it['version']}") in linked]
    # The library itself is the subject, and not among its components.
    missing = linked - {(it["name"], f"v{it['version']}") for it in [*kept, bom["metadata"]["component"]]}
    if missing:
        sys.exit(f"sbom: not in the bill: {sorted(missing)}")
    refs = {it["bom-ref"] for it in [*kept, bom["metadata"]["component"]]}
    bom["components"] = kept
    bom["dependencies"] = [
        {**it, "dependsOn": [ref for ref in it.get("dependsOn", ()) if ref in refs]}
        for it in bom["dependencies"] if it["ref"] in refs
    ]
    with open(path, "w") as file:
        json.dump(bom, file, indent=2, ensure_ascii=False)
        file.write("\n")


main(sys.argv[1])

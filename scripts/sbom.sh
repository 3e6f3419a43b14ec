#!/usr/bin/env bash
# make sbom: a bill of materials, in CycloneDX, of the library as it is built for PostgreSQL
# ${PG:-15}.
source "$(dirname "$0")/lib.sh"

scripts/setup.sh sbom
name=cmk_encrypt-sbom features=pg${PG:-15}
made=$TARGET/sbom/cmk_encrypt-$features.cdx.json
# It writes beside each Cargo.toml of the workspace; those of the crates are parts of the library's.
beside=()
for manifest in $(git ls-files '*Cargo.toml'); do
    beside+=("$(dirname "$manifest")/$name.json")
done
trap 'rm -f "${beside[@]}"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) cargo cyclonedx --quiet --format json \
    --spec-version 1.5 --no-build-deps --features "$features" --override-filename "$name"
cargo tree --locked -p cmk_encrypt --features "$features" -e normal --prefix none |
    sort -u | python3 scripts/sbom.py "$name.json"
mkdir -p "${made%/*}"
install -m 644 "$name.json" "$made"
note "$made"

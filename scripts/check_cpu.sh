#!/usr/bin/env bash
# check_cpu.sh PG_CONFIG: loads the installed extension on two emulated processors. The old one must
# get an error that names what it lacks, not die of an illegal instruction; the newer one must load
# it.
source "$(dirname "$0")/lib.sh"

export PG_CONFIG=$1
server=$(scripts/server.sh create)
trap 'scripts/server.sh destroy "$server"' EXIT

# load_on CPU: what a stand-alone backend on that processor says to LOAD.
load_on() {
    as_server qemu-x86_64 -cpu "$1" "$("$PG_CONFIG" --bindir)/postgres" --single \
        -D "$server/data" postgres 2>&1 <<<"LOAD 'cmk_encrypt'" | grep -v 'TCG'
}

old=$(load_on Westmere || true)
grep -q 'ERROR: .* needs a processor feature' <<<"$old" &&
    grep -q 'reason=cpu_feature feature=' <<<"$old" ||
    die "on a processor without AVX2: $old"
new=$(load_on Haswell)
grep -q 'ERROR\|signal' <<<"$new" && die "on a processor with AVX2: $new"
note "an old processor is told what it lacks; a newer one loads the library"

#!/usr/bin/env bash
# make endurance: builds the release and runs the mixed load with random faults for SECONDS (3600),
# with the library preloaded and, for a tenth of that time, without.
#
# Not by the name SECONDS: bash counts in that.
duration=${ENDURANCE_SECONDS:-3600}
source "$(dirname "$0")/../../scripts/lib.sh"

release_to_measure
"$VENV/bin/python" tests/endurance/endurance.py --seconds "$duration"
"$VENV/bin/python" tests/endurance/endurance.py --seconds "$((duration / 10))" --lazy

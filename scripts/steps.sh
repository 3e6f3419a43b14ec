# shellcheck shell=bash
# Steps of a test run: a headline and a time each, some of them side by side; sourced by
# scripts/test.sh.

names=()
times=()

summary() {
    local status=$? i failed=0
    trap - EXIT
    ((status == 0)) || failed=1
    stop_besides
    printf '\n── steps\n'
    for i in "${!names[@]}"; do
        printf '%7s s  %s\n' "${times[i]:-failed}" "${names[i]}"
    done
    printf '%7s s  in all\n\nsteps: %d passed, %d failed\n' "$SECONDS" "${#times[@]}" "$failed"
    exit "$status"
}
trap summary EXIT
trap 'exit 130' INT TERM HUP

# Interrupts what still runs beside, so that it takes its servers down.
declare -A beside_pid beside_output
stop_besides() {
    local pid
    for pid in "${beside_pid[@]}"; do
        { xargs -r kill -INT <"/proc/$pid/task/$pid/children"; } 2>/dev/null || true
    done
    wait
    rm -f "${beside_output[@]}" "${beside_output[@]/%/.time}"
}

headline() { printf '\n── [%02d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }

# step NAME COMMAND…: runs a command under a headline.
step() {
    local start=$SECONDS
    headline "$1"
    names+=("$1")
    "${@:2}"
    times[${#names[@]} - 1]=$((SECONDS - start))
}

# beside NAME COMMAND…: starts a command, to run beside the steps that follow.
beside() {
    headline "$1: started"
    beside_output[$1]=$(mktemp)
    (
        trap - EXIT
        start=$SECONDS
        "${@:2}"
        printf '%s\n' "$((SECONDS - start))" >"${beside_output[$1]}.time"
    ) &>"${beside_output[$1]}" &
    beside_pid[$1]=$!
}

# join NAME: waits for what `beside` started under that name, and prints what it said.
join() {
    local status=0
    headline "$1"
    names+=("$1")
    wait "${beside_pid[$1]}" || status=$?
    cat "${beside_output[$1]}"
    ((status == 0)) || exit "$status"
    times[${#names[@]} - 1]=$(<"${beside_output[$1]}.time")
    rm "${beside_output[$1]}"{,.time}
    unset "beside_pid[$1]" "beside_output[$1]"
}

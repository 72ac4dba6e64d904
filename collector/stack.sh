#!/usr/bin/env bash
# The stack of docker-compose.yml without Docker, on the loopback interface: the OpenTelemetry
# Collector, Jaeger, and Prometheus if it is installed. See README.md in this folder.
#
#   stack.sh build    build the collector and Jaeger from their Go modules (minutes, once)
#   stack.sh up       start what is not running, wait until it is healthy, print the addresses
#   stack.sh status   print what is running, and where; exit code 1 if something is not
#   stack.sh down     stop everything; the data is kept
#
# All files are under TAPPS_STACK_DIR (default: .stack in the repository). Addresses: see `defaults`.
set -Eeuo pipefail
unset CDPATH # with it `cd` prints the new folder

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${TAPPS_STACK_DIR:-$here/../.stack}

JAEGER_VERSION=2.13.0
JAEGER_MODULE=v1.76.0 # the module's tag for it: its path has no /v2
COLLECTOR_VERSION=$(sed -n 's/^  version: //p' "$here/builder.yaml")

ROOM=4096 # MB that queue and traces may need; `up` warns when less is free
PATIENCE=60 # seconds for a program to become healthy, or to stop

# ---------------------------------------------------------------- output

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '  %s\n' "$@" >&2; fi
    exit 1
}

# The configurations read the same variables, with the same defaults.
defaults() {
    export TAPPS_STACK_OTLP_GRPC=${TAPPS_STACK_OTLP_GRPC:-127.0.0.1:4317}
    export TAPPS_STACK_OTLP_HTTP=${TAPPS_STACK_OTLP_HTTP:-127.0.0.1:4318}
    export TAPPS_STACK_SPAN_METRICS=${TAPPS_STACK_SPAN_METRICS:-127.0.0.1:8889}
    export TAPPS_STACK_COLLECTOR_HEALTH=${TAPPS_STACK_COLLECTOR_HEALTH:-127.0.0.1:13133}
    export TAPPS_STACK_COLLECTOR_METRICS_HOST=${TAPPS_STACK_COLLECTOR_METRICS_HOST:-127.0.0.1}
    export TAPPS_STACK_COLLECTOR_METRICS_PORT=${TAPPS_STACK_COLLECTOR_METRICS_PORT:-8888}
    export TAPPS_STACK_JAEGER_OTLP=${TAPPS_STACK_JAEGER_OTLP:-127.0.0.1:14317}
    export TAPPS_STACK_JAEGER_HTTP=${TAPPS_STACK_JAEGER_HTTP:-127.0.0.1:16686}
    export TAPPS_STACK_JAEGER_GRPC=${TAPPS_STACK_JAEGER_GRPC:-127.0.0.1:16685}
    export TAPPS_STACK_JAEGER_HEALTH=${TAPPS_STACK_JAEGER_HEALTH:-127.0.0.1:13134}
    export TAPPS_STACK_PROMETHEUS=${TAPPS_STACK_PROMETHEUS:-127.0.0.1:9090}
    export TAPPS_STACK_DATA=$dir/data
    export TAPPS_STACK_JAEGER_UI_CONFIG=$here/jaeger-ui.json
    local logs=${TAPPS_OTEL_LOG_DIR:-.tapps-agents/workflow-state/events}
    [[ $logs == /* ]] || logs=$PWD/$logs
    export TAPPS_OTEL_LOG_DIR=$logs
}

# The addresses that a program listens on.
addresses() {
    case $1 in
        collector)
            printf '%s\n' "$TAPPS_STACK_OTLP_GRPC" "$TAPPS_STACK_OTLP_HTTP" \
                "$TAPPS_STACK_SPAN_METRICS" "$TAPPS_STACK_COLLECTOR_HEALTH" \
                "$TAPPS_STACK_COLLECTOR_METRICS_HOST:$TAPPS_STACK_COLLECTOR_METRICS_PORT"
            ;;
        jaeger)
            printf '%s\n' "$TAPPS_STACK_JAEGER_OTLP" "$TAPPS_STACK_JAEGER_HTTP" \
                "$TAPPS_STACK_JAEGER_GRPC" "$TAPPS_STACK_JAEGER_HEALTH"
            ;;
        prometheus) printf '%s\n' "$TAPPS_STACK_PROMETHEUS" ;;
    esac
}

healthy() {
    case $1 in
        collector) answers "$TAPPS_STACK_COLLECTOR_HEALTH" / ;;
        jaeger) answers "$TAPPS_STACK_JAEGER_HEALTH" /status && answers "$TAPPS_STACK_JAEGER_HTTP" /api/services ;;
        prometheus) answers "$TAPPS_STACK_PROMETHEUS" /-/ready ;;
    esac
}

# The device through which bash connects to an address; it takes IPv6 without the brackets.
device() {
    local host=${1%:*}
    host=${host#[}
    say "/dev/tcp/${host%]}/${1##*:}"
}

# Whether a GET of this path returns 200, without any program but bash.
answers() {
    local line=
    {
        exec 3<>"$(device "$1")" &&
            printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$1" >&3 &&
            IFS= read -r -t 2 line <&3
    } 2>/dev/null || true
    { exec 3>&-; } 2>/dev/null || true
    [[ $line == *" 200 "* ]]
}

listening() { (exec 3<>"$(device "$1")") 2>/dev/null; }

# Runs one command at a time per folder: a second one waits, and finds the work done. Without
# `flock`, as on macOS, it does not wait.
locked() {
    if command -v flock >/dev/null; then
        exec 9>"$dir/$1.lock"
        flock 9
    fi
}

# ---------------------------------------------------------------- build

# Whether the program was built from these pins, and runs.
built() { [[ -f $dir/bin/$1.pins && $(<"$dir/bin/$1.pins") == "$2" ]] && "$dir/bin/$1" --version >/dev/null 2>&1; }

# Runs a build step with its output in a log; the end of it is shown if the step fails.
go_step() {
    local what=$1 log=$dir/log/build.log
    shift
    say "  $what"
    "$@" >>"$log" 2>&1 && return
    tail -n 15 "$log" | sed 's/^/  | /' >&2
    die "could not $what; the whole output is in $log" \
        "If a module cannot be downloaded (404, 410, no such host), check the network and GOPROXY." \
        "If no space is left: modules and build cache take about 6 GB (go env GOMODCACHE GOCACHE)."
}

build_collector() {
    local pins
    pins="$COLLECTOR_VERSION $(cksum <"$here/builder.yaml")"
    if built collector "$pins"; then
        say "collector $COLLECTOR_VERSION is built"
        return
    fi
    say "collector $COLLECTOR_VERSION (about three minutes without caches)"
    rm -rf "$dir/build/collector"
    cd "$dir/build"
    GOBIN=$dir/bin go_step "install the collector builder" \
        go install -trimpath "go.opentelemetry.io/collector/cmd/builder@v$COLLECTOR_VERSION"
    go_step "build the collector" \
        "$dir/bin/builder" --config "$here/builder.yaml" --ldflags='-s -w'
    mv -f "$dir/build/collector/collector" "$dir/bin/collector"
    say "$pins" >"$dir/bin/collector.pins"
}

build_jaeger() {
    local pins="$JAEGER_VERSION $JAEGER_MODULE" source
    local module=github.com/jaegertracing/jaeger
    if built jaeger "$pins"; then
        say "jaeger $JAEGER_VERSION is built"
        return
    fi
    say "jaeger $JAEGER_VERSION (about three minutes without caches)"
    # Its go.mod has replace directives, so it builds only as the main module, or from one that
    # copies its requirements and their checksums.
    rm -rf "$dir/build/jaeger"
    mkdir -p "$dir/build/jaeger"
    cd "$dir/build/jaeger"
    go_step "download its module" go mod download "$module@$JAEGER_MODULE"
    source=$(go env GOMODCACHE)/$module@$JAEGER_MODULE
    cat "$source/go.mod" >go.mod
    cat "$source/go.sum" >go.sum
    go_step "copy its requirements" \
        go mod edit -module=tapps.invalid/jaeger "-require=$module@$JAEGER_MODULE"
    go_step "build jaeger" \
        go build -mod=mod -trimpath -o "$dir/bin/jaeger" \
        -ldflags "-s -w -X $module/internal/version.latestVersion=v$JAEGER_VERSION" "$module/cmd/jaeger"
    say "$pins" >"$dir/bin/jaeger.pins"
}

build() {
    command -v go >/dev/null ||
        die "Go is not installed" "Install Go 1.25 or newer (https://go.dev/dl), or use docker compose."
    mkdir -p "$dir/bin" "$dir/build" "$dir/log"
    locked build
    : >"$dir/log/build.log"
    export CGO_ENABLED=0 GOWORK=off
    (build_collector)
    (build_jaeger)
}

# ---------------------------------------------------------------- up, status, down

program() {
    case $1 in
        prometheus) command -v prometheus || true ;;
        *) if [[ -x $dir/bin/$1 ]]; then say "$dir/bin/$1"; fi ;;
    esac
}

# The process that this folder's stack started, if it is still that program.
pid_of() {
    local pid
    pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ && $(ps -ww -p "$pid" -o args= 2>/dev/null) == *"$dir/"* ]] || return 1
    say "$pid"
}

# The program that listens on an address, as far as this user can see.
holder() {
    local port=${1##*:} found=
    if command -v ss >/dev/null; then
        found=$(ss -Hltnp "sport = :$port" 2>/dev/null |
            sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1, process \2/p' | head -n 1)
    elif command -v lsof >/dev/null; then
        found=$(lsof -nP -iTCP:"$port" -sTCP:LISTEN 2>/dev/null | awk 'NR == 2 {print $1 ", process " $2}')
    fi
    say "${found:-a process that this user cannot see}"
}

free_or_die() {
    local address
    for address in $(addresses "$1"); do
        if listening "$address"; then
            die "$1 cannot listen on $address: it is in use by $(holder "$address")" \
                "Stop that program, or set another address: collector/README.md lists the variables."
        fi
    done
}

# Each command line contains the stack's folder, by which `pid_of` recognizes the process.
launch() {
    local name=$1 command
    command=$(program "$name")
    case $name in
        collector) set -- "$command" --config "$here/config.yaml" --feature-gates=stanza.synchronousLogEmitter ;;
        jaeger) set -- "$command" --config "$here/jaeger.yaml" ;;
        prometheus)
            sed -e "s/collector:8889/$TAPPS_STACK_SPAN_METRICS/" \
                -e "s/collector:8888/$TAPPS_STACK_COLLECTOR_METRICS_HOST:$TAPPS_STACK_COLLECTOR_METRICS_PORT/" \
                "$here/prometheus.yml" >"$dir/run/prometheus.yml"
            set -- "$command" --config.file "$dir/run/prometheus.yml" \
                --storage.tsdb.path "$dir/data/prometheus" --web.listen-address "$TAPPS_STACK_PROMETHEUS"
            ;;
    esac
    nohup "$@" >>"$dir/log/$name.log" 2>&1 </dev/null 9>&- &
    say $! >"$dir/run/$name.pid"
}

await_healthy() {
    local name=$1 until=$((SECONDS + PATIENCE))
    until healthy "$name"; do
        if ! pid_of "$name" >/dev/null || ((SECONDS >= until)); then
            tail -n 5 "$dir/log/$name.log" | cut -c 1-400 | sed 's/^/  | /' >&2
            die "$name did not become healthy; its output is in $dir/log/$name.log"
        fi
        sleep 0.1
    done
}

up() {
    local name
    for name in collector jaeger; do
        [[ -n $(program "$name") ]] || die "$name is not built" "Run: $here/stack.sh build"
    done
    umask 077
    mkdir -p "$dir/data/jaeger" "$dir/log" "$dir/run"
    if [[ ! -d $TAPPS_OTEL_LOG_DIR ]]; then
        say "note: the folder $TAPPS_OTEL_LOG_DIR does not exist yet; its logs are read as soon as it does"
    elif [[ ! -r $TAPPS_OTEL_LOG_DIR || ! -x $TAPPS_OTEL_LOG_DIR ]]; then
        say "note: the folder $TAPPS_OTEL_LOG_DIR cannot be read by this user; its logs are skipped"
    fi
    if [[ $TAPPS_OTEL_LOG_DIR == *[]*?{}[]* ]]; then
        say "note: $TAPPS_OTEL_LOG_DIR contains one of * ? [ ] { }; the collector treats it as a pattern"
    fi
    local room
    room=$(df -Pk "$dir" | awk 'NR == 2 {print int($4 / 1024)}')
    if ((room < ROOM)); then
        say "note: only $room MB are free for $dir; on a full disk the collector drops spans silently"
    fi
    local -a parts=(jaeger collector) missing=()
    if [[ -n $(program prometheus) ]]; then parts+=(prometheus); fi
    for name in "${parts[@]}"; do
        if ! pid_of "$name" >/dev/null; then missing+=("$name"); fi
    done
    # All ports are checked before anything is started: either everything starts, or nothing.
    for name in ${missing[@]+"${missing[@]}"}; do free_or_die "$name"; done
    declare -p ${!TAPPS_STACK_@} TAPPS_OTEL_LOG_DIR | sed 's/^declare -x/export/' >"$dir/run/env"
    for name in ${missing[@]+"${missing[@]}"}; do launch "$name"; done
    for name in "${parts[@]}"; do await_healthy "$name"; done
    status
}

# Loads the addresses of a running stack; they take precedence over the variables of this shell.
as_running() {
    local name
    for name in collector jaeger prometheus; do
        if pid_of "$name" >/dev/null; then
            source "$dir/run/env"
            return
        fi
    done
}

status() {
    local name pid down=0
    for name in collector jaeger prometheus; do
        if ! pid=$(pid_of "$name"); then
            if [[ $name == prometheus && -z $(program prometheus) ]]; then
                say "prometheus  is not installed; Jaeger's Monitor tab stays empty"
            else
                say "$(printf '%-11s' "$name") is not running"
                down=1
            fi
        elif healthy "$name"; then
            say "$(printf '%-11s' "$name") $(place "$name")  (process $pid)"
        else
            say "$(printf '%-11s' "$name") is not healthy  (process $pid, $dir/log/$name.log)"
            down=1
        fi
    done
    return "$down"
}

place() {
    case $1 in
        collector) say "http://$TAPPS_STACK_OTLP_GRPC (gRPC), http://$TAPPS_STACK_OTLP_HTTP (HTTP)" ;;
        jaeger) say "http://$TAPPS_STACK_JAEGER_HTTP" ;;
        prometheus) say "http://$TAPPS_STACK_PROMETHEUS" ;;
    esac
}

# The collector first: what Jaeger has not stored stays in the collector's queue on disk.
down() {
    local name pid until
    for name in collector jaeger prometheus; do
        if ! pid=$(pid_of "$name"); then continue; fi
        kill "$pid" 2>/dev/null || continue # it has just exited
        until=$((SECONDS + PATIENCE))
        while pid_of "$name" >/dev/null; do
            ((SECONDS < until)) || die "$name (process $pid) does not stop" "kill -9 $pid loses nothing"
            sleep 0.1
        done
        rm -f "$dir/run/$name.pid"
        say "$name is stopped"
    done
    rm -f "$dir/run/env"
}

# ---------------------------------------------------------------- the command

case "${1:-} $#" in
    "build 1" | "up 1" | "status 1" | "down 1") ;;
    *)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
        exit 2
        ;;
esac
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# The lock comes first: another `up` may be writing the addresses that `as_running` reads.
if [[ $1 == up || $1 == down ]]; then locked run; fi
as_running
defaults
"$1"

# shellcheck shell=bash
# The environment of ./scripts/run and ./scripts/test: sourced by both, bash and Debian's base only.
#
#   environment runtime|dev     system packages, .venv/, Python packages, our C; quick when nothing changed
#   native_build DIR [OPTION]   a standalone CMake build of libraries and native tests in build/DIR
#
# Safe when two start at once: one works behind a file lock, the other waits and finds the work done.

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
VENV=$ROOT/.venv
LOGS=$ROOT/build/logs
PACKAGES=(ringbuf engine journaler replicator gateway settlement scripts)
HEARTBEAT_S=10

say() { printf '%s\n' "$*" >&2; }
die() { say "bullring: $*"; exit 1; }

# shown TITLE LOG COMMAND...: one line for the step, a sign of life while it lasts, the log's end if it fails.
shown() {
    local title=$1 log=$LOGS/$2.log began=$SECONDS status=0 heart
    shift 2
    printf '  %s ...\n' "$title" >&2
    # The pause is a read that never gets anything: a sleep would outlive its killed parent and hold our pipes.
    ( exec 9>&- 7<> <(:)
      while read -rt "$HEARTBEAT_S" -u 7 || (($? > 128)) && kill -0 $$ 2>/dev/null; do
          printf '    %d s: %.100s\n' $((SECONDS - began)) "$(tail -n 1 "$log" 2>/dev/null | tr -cd '[:print:]')" >&2
      done ) &
    heart=$!
    "$@" >"$log" 2>&1 </dev/null || status=$?
    kill "$heart" 2>/dev/null || true
    wait "$heart" 2>/dev/null || true
    if ((status != 0)); then
        tail -n 30 "$log" >&2
        die "$title failed with exit code $status; the whole log is ${log#"$ROOT"/}"
    fi
    printf '  %s: done, %d s\n' "$title" $((SECONDS - began)) >&2
}

# --- the system -----------------------------------------------------------------------------------------------------

# A Python is good if it is new enough, can make a venv with pip, and has its headers beside it.
python_is_good() {
    command -v "$1" >/dev/null 2>&1 && "$1" - >/dev/null 2>&1 <<'EOF'
import ensurepip, pathlib, sys, sysconfig, venv
headers = pathlib.Path(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and headers.is_file()))
EOF
}

# Debian's own first: a Python of a user's tool folder may vanish, or be out of reach of other accounts.
find_python() {
    local candidate
    for candidate in ${BULLRING_PYTHON:+"$BULLRING_PYTHON"} /usr/bin/python3 /usr/bin/python3.{11,12,13,14} \
                     python3 python3.{11,12,13,14}; do
        if python_is_good "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

compiler_works() { printf '#include <stdio.h>\n' | gcc -fsyntax-only -xc - >/dev/null 2>&1; }

# Debian's names of what is missing, one a line.
missing_packages() {
    compiler_works || printf '%s\n' gcc libc6-dev
    command -v cmake >/dev/null || echo cmake
    command -v ninja >/dev/null || echo ninja-build
    find_python >/dev/null || printf '%s\n' python3 python3-dev python3-venv
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update &&
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

is_root() { ((EUID == 0)); }

system_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) && return
    command -v apt-get >/dev/null ||
        die "missing here, under Debian's names: ${missing[*]}; install them with this system's package manager."
    is_root ||
        die "system packages are missing; run: sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    shown "system packages: ${missing[*]}" apt apt_install "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "still missing after apt-get install: ${missing[*]} (Python >= 3.11 is needed)"
}

# What some tests look through or compare with: without them those tests skip, and say so.
test_tools() {
    local missing=()
    command -v g++ >/dev/null || missing+=(g++)
    command -v strace >/dev/null || missing+=(strace)
    command -v tshark >/dev/null || missing+=(tshark)
    PATH=$PATH:/usr/sbin command -v clickhouse-server >/dev/null || missing+=(clickhouse-server)
    # Drills of two nodes: hosts are network namespaces, etcd decides between them. The units are judged by systemd's tools.
    command -v etcd >/dev/null || missing+=(etcd-server)
    PATH=$PATH:/usr/sbin command -v ip >/dev/null || missing+=(iproute2)
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    ((${#missing[@]} == 0)) && return
    if is_root && command -v apt-get >/dev/null; then
        shown "tools of the tests: ${missing[*]}" tools apt_install "${missing[@]}"
    else
        printf '  without %s some tests are skipped; to have them: sudo apt-get install -y %s\n' \
            "${missing[*]}" "${missing[*]}" >&2
    fi
}

# --- the Python environment -----------------------------------------------------------------------------------------

stamp_is() { [[ -f $VENV/.stamp-$1 && $(<"$VENV/.stamp-$1") == "$2" ]]; }
stamp() { printf '%s\n' "$2" >"$VENV/.stamp-$1"; }

# What the compiled modules and their glue are made of. A new folder counts too: the editable hook lists folders.
native_hash() {
    (cd "$ROOT" && {
        find "${PACKAGES[@]}" -name __pycache__ -prune -o -type d -print
        find "${PACKAGES[@]}" -type f \( -name '*.[ch]' -o -name '*.xml' -o -name '_build.py' -o -name CMakeLists.txt \
            -o -path 'scripts/build/*.py' \) -print0 | sort -z | xargs -0 sha256sum
        sha256sum pyproject.toml
    } | LC_ALL=C sort | sha256sum | cut -d' ' -f1)
}

make_venv() { "$1" -m venv --clear "$VENV"; }

build_requirements() {
    "$VENV/bin/python" - "$ROOT/pyproject.toml" <<'EOF'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
EOF
}

# Without build isolation, since cmake's build folder outlives the call: a changed .c is then one compilation.
pip_install() {
    (cd "$ROOT" && "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@")
}

python_packages() {
    local requirements
    mapfile -t requirements < <(build_requirements)
    # setuptools and wheel: one package of the tests comes as an old-style source distribution.
    pip_install "${requirements[@]}" setuptools wheel && pip_install --no-build-isolation --editable "$1"
}

# environment runtime|dev
environment() {
    local profile=$1 python venv_id packages_id native_id requirement
    mkdir -p "$LOGS" 2>/dev/null || die "cannot write in $ROOT: use a checkout of your own."
    exec 9>"$ROOT/build/.environment.lock" || die "cannot write in $ROOT/build: use a checkout of your own."
    if ! flock -n 9; then
        say "  another start is preparing the environment: waiting for it ..."
        flock 9
    fi
    system_packages
    python=$(find_python)

    venv_id="$ROOT $python $("$python" -c 'import sys; print(sys.version)' | tr '\n' ' ')"
    if ! stamp_is venv "$venv_id" || ! "$VENV/bin/python" -c '' 2>/dev/null; then
        shown "environment .venv with $python" venv make_venv "$python"
        stamp venv "$venv_id"
    fi

    native_id=$(native_hash)
    packages_id=$(sha256sum "$ROOT/pyproject.toml")
    case $profile in
        dev) requirement=.[dev] ;;
        runtime) requirement=. ;;
        *) die "environment: runtime or dev, not $profile" ;;
    esac
    # What dev installed, runtime has too.
    if ! stamp_is dev "$packages_id" && ! stamp_is "$profile" "$packages_id"; then
        shown "Python packages and our C, from nothing" packages python_packages "$requirement"
        stamp "$profile" "$packages_id"
        stamp native "$native_id"
    elif ! stamp_is native "$native_id"; then
        shown "our C, what changed" native pip_install --no-build-isolation --no-deps --editable .
        stamp native "$native_id"
    fi
    exec 9>&-
}

# native_build DIR [CMAKE OPTION...]
native_build() {
    local folder=$ROOT/build/$1 fresh=()
    shift
    # A folder configured for another checkout (moved or copied) would be refused by CMake.
    if [[ -f $folder/CMakeCache.txt ]] &&
        ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$ROOT/scripts/build" "$folder/CMakeCache.txt"; then
        fresh=(--fresh)
    fi
    mkdir -p "$folder"
    (
        flock 8
        cmake "${fresh[@]}" -S "$ROOT/scripts/build" -B "$folder" -G Ninja -DBULLRING_PYTHON=OFF "$@" >"$folder/configure.log" 2>&1 ||
            { tail -n 30 "$folder/configure.log" >&2; exit 1; }
        cmake --build "$folder"
    ) 8>"$folder/.lock"
}

#!/usr/bin/env bash
# Builds the programs of a real Kubernetes from Go modules: once, about ten minutes of one core; a second run takes no time.
#
#   kubernetes.sh [PART...]      parts are those folders of e2e/kubernetes that have a go.mod; by default kube, etcd and helm
#
# helm is Helm 4, helm3 is Helm 3.
#
# Prints the folders that have them, with colons between: ${TAKHIN_CACHE:-$HOME/.cache/takhin}/kubernetes/PART-HASH, where
# HASH is of the part's go.mod, go.sum and, if it has one, main.go. They may be deleted at any time. With KUBE_TEST_BIN nothing is built,
# and that is printed instead. Sources and Go's build cache (4 GB) go away again, unless GOCACHE and GOMODCACHE name others.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ -n "${KUBE_TEST_BIN:-}" ]; then
    echo "$KUBE_TEST_BIN"
    exit 0
fi

SOURCES="$(cd "$SETUP_DIR/../kubernetes" && pwd)"
HOME_OF_ALL="$TAKHIN_CACHE/kubernetes"
[ $# -gt 0 ] || set -- kube etcd helm

# home_of PART: where it is or will be.
home_of() {
    [ -f "$SOURCES/$1/go.mod" ] || die "no part is called $1"
    local files=("$SOURCES/$1/go.mod" "$SOURCES/$1/go.sum")
    [ ! -f "$SOURCES/$1/main.go" ] || files+=("$SOURCES/$1/main.go")
    echo "$HOME_OF_ALL/$1-$(stamp_of "${files[@]}")"
}

# module_of PART: what the part is made of.
module_of() {
    case $1 in
        kube) echo k8s.io/kubernetes ;;
        etcd) echo go.etcd.io/etcd/server/v3 ;;
        helm) echo helm.sh/helm/v4 ;;
        helm3) echo helm.sh/helm/v3 ;;
        coredns) echo github.com/coredns/coredns ;;
    esac
}

# program_of PART: the package that is built: its own main.go, or a program that Go's module has as it is.
program_of() {
    case $1 in
        helm3) echo helm.sh/helm/v3/cmd/helm ;;
        *) echo . ;;
    esac
}

# version_of PART: what its go.mod asks for.
version_of() {
    awk -v module="$(module_of "$1")" '$1 == module { print $2; exit } $1 == "require" && $2 == module { print $3; exit }' "$SOURCES/$1/go.mod"
}

# What is fetched where the system's Go is older than the parts' go.mod asks for.
GO_RELEASE=1.26.8

# Whether the first version is at least the second.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -1)" = "$2" ]; }

# need_go: has `go` be a Go that builds the parts. Anything from 1.21 on fetches a newer one by itself.
need_go() {
    if ! command -v go >/dev/null; then
        command -v apt-get >/dev/null || die "Go is missing: install Go 1.21 or newer (https://go.dev/dl)"
        say "apt-get install golang-go"
        as_root apt-get -qq update >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends golang-go ca-certificates >&2
    fi
    local has
    has=$(GOTOOLCHAIN=local go env GOVERSION)
    has=${has#go}
    at_least "$has" 1.26.0 && return
    say "Go $has is too old for the parts: fetching Go $GO_RELEASE by the module proxy"
    if at_least "$has" 1.21.0; then
        export GOTOOLCHAIN="go$GO_RELEASE"
        return
    fi
    # Older ones do not know that this module is a Go, but can fetch it and check its sum.
    local module root
    module="golang.org/toolchain@v0.0.1-go$GO_RELEASE.$(go env GOOS)-$(go env GOARCH)"
    root=$(cd / && go mod download -json "$module" | sed -nE 's/^\s*"Dir": "(.*)",$/\1/p')
    [ -d "$root" ] || die "cannot fetch $module: install Go 1.21 or newer (https://go.dev/dl)"
    chmod +x "$root"/bin/* "$root"/pkg/tool/*/*
    export GOROOT="$root" PATH="$root/bin:$PATH" GOTOOLCHAIN=local
}

# flags_of PART: what the part is to say of its version; charts look at it.
flags_of() {
    local version major minor
    version=$(version_of "$1")
    case $1 in
        kube)
            IFS=. read -r major minor _ <<<"${version#v}"
            local to=k8s.io/component-base/version
            echo "-X $to.gitVersion=$version -X $to.gitMajor=$major -X $to.gitMinor=$minor"
            ;;
        helm) echo "-X helm.sh/helm/v4/internal/version.version=$version" ;;
        helm3)
            # The Kubernetes that charts are rendered for where none is asked: that of its client library, as in Helm's Makefile.
            local to=helm.sh/helm/v3 client
            client=$(awk '$1 == "k8s.io/client-go" { split($2, number, "."); print number[2]; exit }' "$SOURCES/helm3/go.mod")
            echo "-X $to/internal/version.version=$version" \
                "-X $to/pkg/chartutil.k8sVersionMajor=1 -X $to/pkg/chartutil.k8sVersionMinor=$client" \
                "-X $to/pkg/lint/rules.k8sVersionMajor=1 -X $to/pkg/lint/rules.k8sVersionMinor=$client"
            ;;
    esac
}

# build PART HOME: everything or nothing.
build() {
    local part=$1 home=$2 begin=$SECONDS
    say "building $part $(version_of "$part") (once; some minutes)"
    rm -rf "$home.part"
    mkdir -p "$home.part"
    (cd "$SOURCES/$part" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags "-s -w $(flags_of "$part")" \
        -o "$home.part/$part" "$(program_of "$part")" 2>&1 | { grep -v '^go: downloading' || true; }) >&2 || die "$part cannot be built; the lines above say why"
    if [ "$part" = kube ]; then
        for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
            ln -s kube "$home.part/$name"
        done
    fi
    mv "$home.part" "$home"
    say "built $part in $((SECONDS - begin)) s"
}

mkdir -p "$HOME_OF_ALL"
# Two checkouts may ask at once: the second waits and finds everything there.
exec 9>"$HOME_OF_ALL/.lock"
flock 9
homes=()
for part in "$@"; do
    home=$(home_of "$part")
    homes+=("$home")
    [ -d "$home" ] && continue
    if [ -z "${go_is_there:-}" ]; then
        scratch="$HOME_OF_ALL/.go"
        trap 'rm -rf "$scratch"' EXIT
        # Build products of the whole of Kubernetes help nobody until its version moves.
        export GOCACHE="${GOCACHE:-$scratch/build}" GOMODCACHE="${GOMODCACHE:-$scratch/mod}" GOFLAGS=-modcacherw
        need_go
        go_is_there=yes
    fi
    build "$part" "$home"
done
IFS=:
echo "${homes[*]}"

#!/usr/bin/env bash
# `make e2e`: the chart on a Kubernetes, which E2E_CLUSTER chooses.
#
#   local      (default) three nodes on this machine, made from Go modules and Debian's containerd; needs root
#   kind       three nodes that kind makes and that go again; needs kind, docker, kubectl and helm
#   existing   the cluster that KUBECONFIG names; its nodes have or can pull the images; needs kubectl and helm
#
#   e2e.sh [WORD...]      runs the tests that have a word in their name
#
# docs/internals/kubernetes-tests.md has the whole contract.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ROOT="$(cd "$SETUP_DIR/../.." && pwd)"
TARGET="${CARGO_TARGET_DIR:-$ROOT/target}"
CLUSTER="${E2E_CLUSTER:-local}"
cd "$ROOT"

need() { command -v "$1" >/dev/null || die "E2E_CLUSTER=$CLUSTER needs $1: install it"; }

# programs: what the images are made of.
programs() {
    .ci/tools cc rocksdb rsync
    [ -n "${TAKHIN_BIN:-}" ] || cargo build --release --locked -p takhin-broker
    cargo build -q --locked -p takhin-operator -p takhin-cdc
    export TAKHIN_BIN="${TAKHIN_BIN:-$TARGET/release/takhin}"
    export TAKHIN_OPERATOR_BIN="${TAKHIN_OPERATOR_BIN:-$TARGET/debug/takhin-operator}"
    export TAKHIN_CDC_BIN="${TAKHIN_CDC_BIN:-$TARGET/debug/takhin-cdc}"
}

# clients: what reads and writes from this machine.
clients() {
    if ! command -v kcat >/dev/null; then
        command -v apt-get >/dev/null || die "this is not a Debian system: install kcat by hand"
        say "apt-get install kcat"
        as_root apt-get -qq update >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends kcat >&2
    fi
    bash "$SETUP_DIR/python.sh" >/dev/null
}

local_nodes() {
    programs
    bash "$SETUP_DIR/kubernetes.sh" kube etcd helm coredns >/dev/null
    bash "$SETUP_DIR/nodes.sh" >/dev/null
    bash "$SETUP_DIR/python.sh" >/dev/null
}

# kind_nodes: makes them, gives them the images, and has this machine find the way to their pods and Services.
kind_nodes() {
    local name=takhin-e2e tag="${E2E_IMAGE_TAG:-e2e}" node address pods
    need kind && need docker && need kubectl && need helm
    programs
    clients
    scratch=$(mktemp -d)
    trap 'kind delete cluster --name takhin-e2e; rm -rf "$scratch"' EXIT
    export KUBECONFIG="$scratch/kubeconfig"
    kind create cluster --name "$name" --config e2e/kind.yaml --wait 180s >&2
    kind load image-archive --name "$name" "$(bash "$SETUP_DIR/images.sh" "$tag")" >&2
    kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address} {.spec.podCIDR}{"\n"}{end}' |
        while read -r node address pods; do
            as_root ip route replace "$pods" via "$address"
            # Any node translates the addresses of Services (kind's default range).
            as_root ip route replace 10.96.0.0/16 via "$address"
        done
    export E2E_IMAGE_TAG="$tag" E2E_STORAGE_CLASS=standard
    # Its nodes share the machine with a container runtime in each, and hosted runners are slow.
    export E2E_TIMEOUT_SCALE="${E2E_TIMEOUT_SCALE:-3}"
    E2E_DNS=$(kubectl get service -n kube-system kube-dns -o jsonpath='{.spec.clusterIP}')
    export E2E_DNS
}

case $CLUSTER in
    local) local_nodes ;;
    kind) kind_nodes ;;
    existing)
        need kubectl && need helm
        [ -n "${KUBECONFIG:-}" ] || die "E2E_CLUSTER=existing needs KUBECONFIG: the cluster to test on"
        clients
        ;;
    *) die "E2E_CLUSTER=$CLUSTER: choose local, kind or existing" ;;
esac
say "the chart on: $CLUSTER"
[ "$CLUSTER" = local ] || export E2E_CLUSTER=existing
cargo test -q --locked -p takhin-e2e --test nodes -- "$@"
